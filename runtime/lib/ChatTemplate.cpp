//===- ChatTemplate.cpp - Renders messages as a model was trained on ------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/ChatTemplate.h"

#include "runtime/abi/Json.h"

#include <algorithm>
#include <cctype>
#include <ctime>
#include <variant>

using namespace gptq::abi;
using namespace gptq::runtime;

namespace {

/// Bounds for templates that come with a file.
constexpr size_t maxSourceBytes = size_t(1) << 20;
/// Nested statements and operators; evaluation recurses by it.
constexpr int maxNesting = 200;
/// Lists within lists that a template may build.
constexpr int maxValueDepth = 64;
/// Evaluated nodes plus bytes made, about a second at worst.
constexpr int64_t maxEffort = int64_t(1) << 24;
/// What an iteration counts for the variables it makes.
constexpr int64_t iterationEffort = 16;

Status templateError(int line, const std::string &what) {
  return Status(StatusCode::Unsupported,
                "chat template, line " + std::to_string(line) + ": " + what);
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

struct Value;
struct List;
struct Dict;

struct Undefined {};
struct None {};

/// What a template computes with. Lists and dicts are immutable once made and
/// shared; only a namespace changes, and it can be held by nothing but a
/// variable, so values form no cycles.
struct Value {
  std::variant<Undefined, None, bool, int64_t, double, std::string,
               std::shared_ptr<List>, std::shared_ptr<Dict>>
      held;

  Value() = default;
  template <typename T> Value(T v) : held(std::move(v)) {}

  template <typename T> const T *as() const { return std::get_if<T>(&held); }
  template <typename T> bool is() const {
    return std::holds_alternative<T>(held);
  }
  const std::string *string() const { return as<std::string>(); }
  const List *list() const {
    auto *p = as<std::shared_ptr<List>>();
    return p ? p->get() : nullptr;
  }
  Dict *dict() const {
    auto *p = as<std::shared_ptr<Dict>>();
    return p ? p->get() : nullptr;
  }
};

struct List {
  std::vector<Value> items;
  int depth = 1;
};

struct Dict {
  std::vector<std::pair<std::string, Value>> items;
  int depth = 1;
  bool isNamespace = false;

  const Value *find(std::string_view key) const {
    for (const auto &[name, value] : items)
      if (name == key)
        return &value;
    return nullptr;
  }
  void set(const std::string &key, Value value) {
    for (auto &[name, old] : items)
      if (name == key) {
        old = std::move(value);
        return;
      }
    items.emplace_back(key, std::move(value));
  }
};

int depthOf(const Value &v) {
  if (const List *list = v.list())
    return list->depth;
  if (const Dict *dict = v.dict())
    return dict->depth;
  return 0;
}

const char *kindOf(const Value &v) {
  static const char *const names[] = {"undefined",  "none",     "a boolean",
                                      "an integer", "a number", "a string",
                                      "a list",     "a mapping"};
  return names[v.held.index()];
}

bool truthy(const Value &v) {
  if (auto *b = v.as<bool>())
    return *b;
  if (auto *i = v.as<int64_t>())
    return *i != 0;
  if (auto *d = v.as<double>())
    return *d != 0;
  if (auto *s = v.string())
    return !s->empty();
  if (auto *l = v.list())
    return !l->items.empty();
  if (auto *d = v.dict())
    return d->isNamespace || !d->items.empty();
  return false;
}

/// Integers and booleans are numbers, as in Python.
std::optional<double> number(const Value &v) {
  if (auto *b = v.as<bool>())
    return *b;
  if (auto *i = v.as<int64_t>())
    return double(*i);
  if (auto *d = v.as<double>())
    return *d;
  return std::nullopt;
}

std::optional<int64_t> integer(const Value &v) {
  if (auto *b = v.as<bool>())
    return *b;
  if (auto *i = v.as<int64_t>())
    return *i;
  return std::nullopt;
}

bool equal(const Value &a, const Value &b) {
  if (auto x = number(a), y = number(b); x && y)
    return *x == *y;
  if (a.held.index() != b.held.index())
    return false;
  if (a.string())
    return *a.string() == *b.string();
  if (const List *x = a.list()) {
    const List *y = b.list();
    return std::equal(x->items.begin(), x->items.end(), y->items.begin(),
                      y->items.end(), equal);
  }
  if (const Dict *x = a.dict()) {
    const Dict *y = b.dict();
    if (x->items.size() != y->items.size())
      return false;
    for (const auto &[key, value] : x->items) {
      const Value *other = y->find(key);
      if (!other || !equal(value, *other))
        return false;
    }
    return true;
  }
  return true;
}

std::string numberText(double d) {
  std::string text = Json(d).dump();
  return text;
}

std::string jsonString(const std::string &s) {
  return Json(s).dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// JSON as Python's json.dumps writes it.
void appendJson(const Value &v, int indent, int level, std::string &out) {
  auto newline = [&](int l) {
    if (indent > 0)
      out += "\n" + std::string(size_t(indent) * l, ' ');
  };
  const char *comma = indent > 0 ? "," : ", ";
  if (auto *b = v.as<bool>()) {
    out += *b ? "true" : "false";
  } else if (auto *i = v.as<int64_t>()) {
    out += std::to_string(*i);
  } else if (auto *d = v.as<double>()) {
    out += numberText(*d);
  } else if (auto *s = v.string()) {
    out += jsonString(*s);
  } else if (auto *l = v.list()) {
    out += '[';
    for (size_t i = 0; i < l->items.size(); ++i) {
      if (i)
        out += comma;
      newline(level + 1);
      appendJson(l->items[i], indent, level + 1, out);
    }
    if (!l->items.empty())
      newline(level);
    out += ']';
  } else if (auto *d = v.dict()) {
    out += '{';
    for (size_t i = 0; i < d->items.size(); ++i) {
      if (i)
        out += comma;
      newline(level + 1);
      out += jsonString(d->items[i].first) + ": ";
      appendJson(d->items[i].second, indent, level + 1, out);
    }
    if (!d->items.empty())
      newline(level);
    out += '}';
  } else {
    out += "null";
  }
}

/// A string as Python prints it inside a list.
std::string reprString(const std::string &s) {
  char quote =
      s.find('\'') != std::string::npos && s.find('"') == std::string::npos
          ? '"'
          : '\'';
  std::string out(1, quote);
  for (char c : s) {
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\r')
      out += "\\r";
    else if (c == quote || c == '\\')
      (out += '\\') += c;
    else
      out += c;
  }
  return out + quote;
}

/// What `{{ v }}` writes, or with `isElement` what it writes for an element of
/// a list.
std::string text(const Value &v, bool isElement = false) {
  if (v.is<Undefined>())
    return isElement ? "Undefined" : "";
  if (v.is<None>())
    return "None";
  if (auto *b = v.as<bool>())
    return *b ? "True" : "False";
  if (auto *s = v.string())
    return isElement ? reprString(*s) : *s;
  std::string out;
  if (auto *l = v.list()) {
    for (const Value &item : l->items)
      out += (out.empty() ? "" : ", ") + text(item, true);
    return "[" + out + "]";
  }
  if (auto *d = v.dict()) {
    for (const auto &[key, value] : d->items)
      out += (out.empty() ? "" : ", ") + reprString(key) + ": " +
             text(value, true);
    return "{" + out + "}";
  }
  appendJson(v, 0, 0, out);
  return out;
}

//===----------------------------------------------------------------------===//
// Syntax
//===----------------------------------------------------------------------===//

struct Expr {
  enum class Kind {
    Literal,
    Name,
    List,
    Dict,
    Unary,
    Binary,
    Conditional,
    Attribute,
    Index,
    Slice,
    Call,
    Filter,
    Test,
  };
  Kind kind = Kind::Literal;
  int line = 0;
  int depth = 1;
  Value literal;
  /// The name, operator, attribute, filter or test.
  std::string name;
  /// Operands; an absent bound of a slice or an absent else is null.
  std::vector<std::unique_ptr<Expr>> operands;
  /// Named arguments of calls and filters.
  std::vector<std::pair<std::string, std::unique_ptr<Expr>>> named;
  bool isNegated = false;
};
using ExprPtr = std::unique_ptr<Expr>;

struct Statement {
  enum class Kind { Text, Output, If, For, Set, Break, Continue };
  Kind kind = Kind::Text;
  int line = 0;
  std::string text;
  /// Output: the value. If: one condition a branch. For: the list, then the
  /// condition of `if`, if any. Set: the value, or null for a block.
  std::vector<ExprPtr> exprs;
  /// For: the loop variables. Set: the target, and its attribute if any.
  std::vector<std::string> names;
  /// If: one a branch, and one more for else. For: body, else. Set: the block.
  std::vector<std::vector<Statement>> bodies;
};
using Block = std::vector<Statement>;

/// A piece of the source: text, or the inside of a tag.
struct Piece {
  enum class Kind { Text, Output, Tag } kind;
  std::string_view source;
  int line;
};

/// Cuts the source into pieces and applies white space control: `-` inside a
/// tag strips all white space on its side; besides, as chat templates are
/// rendered, a newline right after a block tag is dropped, and spaces before
/// one at the start of its line.
Expected<std::vector<Piece>> cutPieces(std::string_view source) {
  std::vector<Piece> pieces;
  int line = 1;
  size_t at = 0;
  bool stripNext = false, dropNewline = false;
  auto countLines = [](std::string_view s) {
    return int(std::count(s.begin(), s.end(), '\n'));
  };
  while (at < source.size()) {
    size_t open = at;
    while ((open = source.find('{', open)) != std::string_view::npos) {
      char next = open + 1 < source.size() ? source[open + 1] : '\0';
      if (next == '{' || next == '%' || next == '#')
        break;
      ++open;
    }
    bool atEnd = open == std::string_view::npos;
    std::string_view plain =
        source.substr(at, atEnd ? std::string_view::npos : open - at);
    int plainLine = line;
    line += countLines(plain);

    bool atLineStart = at == 0 || source[at - 1] == '\n';
    if (stripNext) {
      while (!plain.empty() && std::isspace((unsigned char)plain[0]))
        plain.remove_prefix(1);
    } else if (dropNewline && !plain.empty()) {
      if (plain.substr(0, 2) == "\r\n")
        plain.remove_prefix(2);
      else if (plain[0] == '\n')
        plain.remove_prefix(1);
    }
    if (atEnd) {
      if (!plain.empty())
        pieces.push_back({Piece::Kind::Text, plain, plainLine});
      break;
    }

    char kind = source[open + 1];
    std::string_view closing = kind == '{' ? "}}" : kind == '%' ? "%}" : "#}";
    // A closing mark inside a string does not close.
    size_t close = open + 2;
    char quote = 0;
    for (; close < source.size(); ++close) {
      char c = source[close];
      if (quote) {
        if (c == '\\')
          ++close;
        else if (c == quote)
          quote = 0;
      } else if (kind != '#' && (c == '\'' || c == '"')) {
        quote = c;
      } else if (source.compare(close, 2, closing) == 0) {
        // In `{{ {"a": {}}}}` the last two braces close.
        if (kind == '{' && close + 2 < source.size() &&
            source[close + 2] == '}')
          continue;
        break;
      }
    }
    if (close >= source.size())
      return templateError(line, "a tag is not closed");
    std::string_view inside = source.substr(open + 2, close - open - 2);
    bool stripBefore = !inside.empty() && inside[0] == '-';
    bool keepBefore = !inside.empty() && inside[0] == '+';
    if (stripBefore || keepBefore)
      inside.remove_prefix(1);
    stripNext = !inside.empty() && inside.back() == '-';
    bool keepAfter = !inside.empty() && inside.back() == '+';
    if (stripNext || keepAfter)
      inside.remove_suffix(1);
    dropNewline = kind != '{' && !keepAfter;

    if (stripBefore) {
      while (!plain.empty() && std::isspace((unsigned char)plain.back()))
        plain.remove_suffix(1);
    } else if (kind != '{' && !keepBefore) {
      size_t n = plain.size();
      while (n > 0 && (plain[n - 1] == ' ' || plain[n - 1] == '\t'))
        --n;
      if (n > 0 ? plain[n - 1] == '\n'
                : atLineStart || (plain.data() > source.data() &&
                                  plain.data()[-1] == '\n'))
        plain = plain.substr(0, n);
    }
    if (!plain.empty())
      pieces.push_back({Piece::Kind::Text, plain, plainLine});
    if (kind != '#')
      pieces.push_back(
          {kind == '{' ? Piece::Kind::Output : Piece::Kind::Tag, inside, line});
    line += countLines(source.substr(open, close + 2 - open));
    at = close + 2;
  }
  return pieces;
}

/// A word of an expression.
struct Token {
  enum class Kind { End, Name, Integer, Float, String, Operator };
  Kind kind = Kind::End;
  std::string text;
};

Expected<std::vector<Token>> tokenize(std::string_view s, int line) {
  static const char *const operators[] = {
      "**", "//", "==", "!=", "<=", ">=", "(", ")", "[", "]", "{", "}", ",",
      ":",  ".",  "|",  "~",  "+",  "-",  "*", "/", "%", "<", ">", "="};
  std::vector<Token> out;
  for (size_t i = 0; i < s.size();) {
    unsigned char c = s[i];
    if (std::isspace(c)) {
      ++i;
    } else if (std::isalpha(c) || c == '_') {
      size_t begin = i;
      while (i < s.size() && (std::isalnum((unsigned char)s[i]) || s[i] == '_'))
        ++i;
      out.push_back(
          {Token::Kind::Name, std::string(s.substr(begin, i - begin))});
    } else if (std::isdigit(c)) {
      size_t begin = i;
      bool isFloat = false;
      while (i < s.size() && (std::isdigit((unsigned char)s[i]) ||
                              (s[i] == '.' && !isFloat && i + 1 < s.size() &&
                               std::isdigit((unsigned char)s[i + 1]))))
        isFloat |= s[i++] == '.';
      // Fifteen digits fit both kinds exactly.
      if (i - begin > 15)
        return templateError(line, "a number is too long");
      out.push_back({isFloat ? Token::Kind::Float : Token::Kind::Integer,
                     std::string(s.substr(begin, i - begin))});
    } else if (c == '\'' || c == '"') {
      std::string value;
      for (++i; i < s.size() && s[i] != char(c); ++i) {
        if (s[i] != '\\' || i + 1 == s.size()) {
          value += s[i];
          continue;
        }
        char e = s[++i];
        switch (e) {
        case 'n':
          value += '\n';
          break;
        case 't':
          value += '\t';
          break;
        case 'r':
          value += '\r';
          break;
        case '\\':
        case '\'':
        case '"':
          value += e;
          break;
        case '\n':
          break;
        case 'x':
        case 'u':
        case 'U':
        case 'N':
          return templateError(line, std::string("the escape \\") + e +
                                         " is not supported");
        default:
          value += '\\';
          value += e;
        }
      }
      if (i >= s.size())
        return templateError(line, "a string is not closed");
      ++i;
      out.push_back({Token::Kind::String, std::move(value)});
    } else {
      const char *match = nullptr;
      for (const char *op : operators)
        if (s.compare(i, std::string_view(op).size(), op) == 0) {
          match = op;
          break;
        }
      if (!match)
        return templateError(line,
                             "unexpected " + quoteForMessage(s.substr(i, 1)));
      out.push_back({Token::Kind::Operator, match});
      i += out.back().text.size();
    }
  }
  out.push_back({});
  return out;
}

class Parser {
public:
  explicit Parser(std::vector<Piece> pieces) : pieces(std::move(pieces)) {}

  Expected<Block> parse() {
    Block block;
    GPTQ_TRY(parseBlock(block, {}, 0));
    return block;
  }

private:
  //===--------------------------------------------------------------------===//
  // Statements
  //===--------------------------------------------------------------------===//

  Status fail(const std::string &what) const {
    return templateError(line, what);
  }

  /// Starts reading the words of a piece.
  Status enter(const Piece &piece) {
    line = piece.line;
    GPTQ_ASSIGN(tokens, tokenize(piece.source, piece.line));
    at = 0;
    return {};
  }

  Status leave() {
    if (peek().kind != Token::Kind::End)
      return fail("unexpected " + quoteForMessage(peek().text));
    return {};
  }

  /// Reads statements up to a tag that starts with one of `ends`, whose words
  /// are then current and its name taken.
  Status parseBlock(Block &block, const std::vector<std::string> &ends,
                    int nesting) {
    if (nesting > maxNesting)
      return fail("statements are nested too deeply");
    while (piece < pieces.size()) {
      const Piece &p = pieces[piece++];
      if (p.kind == Piece::Kind::Text) {
        Statement s;
        s.line = p.line;
        s.text = std::string(p.source);
        block.push_back(std::move(s));
        continue;
      }
      GPTQ_TRY(enter(p));
      if (p.kind == Piece::Kind::Output) {
        Statement s;
        s.kind = Statement::Kind::Output;
        s.line = line;
        GPTQ_ASSIGN(ExprPtr value, parseExpr());
        GPTQ_TRY(leave());
        s.exprs.push_back(std::move(value));
        block.push_back(std::move(s));
        continue;
      }
      if (peek().kind != Token::Kind::Name)
        return fail("expected the name of a statement");
      std::string name = take().text;
      if (std::find(ends.begin(), ends.end(), name) != ends.end()) {
        endName = name;
        return {};
      }
      GPTQ_TRY(parseStatement(name, block, nesting));
    }
    if (!ends.empty())
      return fail("'" + ends.back() + "' is missing");
    return {};
  }

  Status parseStatement(const std::string &name, Block &block, int nesting) {
    Statement s;
    s.line = line;
    if (name == "if") {
      s.kind = Statement::Kind::If;
      endName = "elif";
      while (endName == "elif") {
        GPTQ_ASSIGN(ExprPtr condition, parseExpr());
        GPTQ_TRY(leave());
        s.exprs.push_back(std::move(condition));
        s.bodies.emplace_back();
        GPTQ_TRY(parseBlock(s.bodies.back(), {"elif", "else", "endif"},
                            nesting + 1));
      }
      if (endName == "else") {
        GPTQ_TRY(leave());
        s.bodies.emplace_back();
        GPTQ_TRY(parseBlock(s.bodies.back(), {"endif"}, nesting + 1));
      }
      GPTQ_TRY(leave());
    } else if (name == "for") {
      s.kind = Statement::Kind::For;
      do {
        if (peek().kind != Token::Kind::Name)
          return fail("expected the name of a loop variable");
        s.names.push_back(take().text);
      } while (accept(","));
      if (!acceptName("in"))
        return fail("expected 'in'");
      GPTQ_ASSIGN(ExprPtr list, parseOr());
      s.exprs.push_back(std::move(list));
      if (acceptName("if")) {
        GPTQ_ASSIGN(ExprPtr condition, parseExpr());
        s.exprs.push_back(std::move(condition));
      }
      if (acceptName("recursive"))
        return fail("a recursive loop is not supported");
      GPTQ_TRY(leave());
      ++loops;
      s.bodies.resize(2);
      GPTQ_TRY(parseBlock(s.bodies[0], {"else", "endfor"}, nesting + 1));
      --loops;
      if (endName == "else") {
        GPTQ_TRY(leave());
        GPTQ_TRY(parseBlock(s.bodies[1], {"endfor"}, nesting + 1));
      }
      GPTQ_TRY(leave());
    } else if (name == "set") {
      s.kind = Statement::Kind::Set;
      if (peek().kind != Token::Kind::Name)
        return fail("expected the name of a variable");
      s.names.push_back(take().text);
      if (accept(".")) {
        if (peek().kind != Token::Kind::Name)
          return fail("expected the name of an attribute");
        s.names.push_back(take().text);
      }
      if (accept("=")) {
        GPTQ_ASSIGN(ExprPtr value, parseExpr());
        s.exprs.push_back(std::move(value));
        GPTQ_TRY(leave());
      } else {
        GPTQ_TRY(leave());
        s.bodies.emplace_back();
        GPTQ_TRY(parseBlock(s.bodies[0], {"endset"}, nesting + 1));
        GPTQ_TRY(leave());
      }
    } else if (name == "break" || name == "continue") {
      s.kind =
          name == "break" ? Statement::Kind::Break : Statement::Kind::Continue;
      if (loops == 0)
        return fail("'" + name + "' is outside of a loop");
      GPTQ_TRY(leave());
    } else if (name == "generation") {
      // Marks what a training loss covers; the text is the same.
      GPTQ_TRY(leave());
      GPTQ_TRY(parseBlock(block, {"endgeneration"}, nesting + 1));
      return leave();
    } else {
      return fail("the statement " + quoteForMessage(name) +
                  " is not supported");
    }
    block.push_back(std::move(s));
    return {};
  }

  //===--------------------------------------------------------------------===//
  // Expressions, loosest first
  //===--------------------------------------------------------------------===//

  const Token &peek() const { return tokens[at]; }
  const Token &take() {
    const Token &t = tokens[at];
    if (t.kind != Token::Kind::End)
      ++at;
    return t;
  }
  bool isOperator(const char *op) const {
    return peek().kind == Token::Kind::Operator && peek().text == op;
  }
  bool accept(const char *op) { return isOperator(op) && (++at, true); }
  bool isName(const char *name) const {
    return peek().kind == Token::Kind::Name && peek().text == name;
  }
  bool acceptName(const char *name) { return isName(name) && (++at, true); }
  Status expect(const char *op) {
    if (accept(op))
      return {};
    return fail(std::string("expected '") + op + "', found " +
                (peek().kind == Token::Kind::End
                     ? std::string("the tag's end")
                     : quoteForMessage(peek().text)));
  }

  /// Makes a node and checks how deep its tree has become.
  Expected<ExprPtr> make(Expr::Kind kind, std::string name,
                         std::vector<ExprPtr> operands) {
    auto e = std::make_unique<Expr>();
    e->kind = kind;
    e->line = line;
    e->name = std::move(name);
    for (const ExprPtr &operand : operands)
      if (operand)
        e->depth = std::max(e->depth, operand->depth + 1);
    if (e->depth > maxNesting)
      return fail("an expression is nested too deeply");
    e->operands = std::move(operands);
    return e;
  }

  template <typename... T> static std::vector<ExprPtr> pack(T... operands) {
    std::vector<ExprPtr> list;
    (list.push_back(std::move(operands)), ...);
    return list;
  }

  Expected<ExprPtr> binary(const std::string &op, ExprPtr a, ExprPtr b) {
    return make(Expr::Kind::Binary, op, pack(std::move(a), std::move(b)));
  }

  Expected<ExprPtr> parseExpr() {
    // Parentheses recurse without making a node; count them here.
    if (++recursion > maxNesting)
      return fail("an expression is nested too deeply");
    Expected<ExprPtr> result = parseConditional();
    --recursion;
    return result;
  }

  Expected<ExprPtr> parseConditional() {
    GPTQ_ASSIGN(ExprPtr value, parseOr());
    while (acceptName("if")) {
      GPTQ_ASSIGN(ExprPtr condition, parseOr());
      ExprPtr otherwise;
      if (acceptName("else")) {
        GPTQ_ASSIGN(otherwise, parseExpr());
      }
      GPTQ_ASSIGN(value, make(Expr::Kind::Conditional, "",
                              pack(std::move(value), std::move(condition),
                                   std::move(otherwise))));
    }
    return value;
  }

  Expected<ExprPtr> parseOr() {
    GPTQ_ASSIGN(ExprPtr left, parseAnd());
    while (acceptName("or")) {
      GPTQ_ASSIGN(ExprPtr right, parseAnd());
      GPTQ_ASSIGN(left, binary("or", std::move(left), std::move(right)));
    }
    return left;
  }

  Expected<ExprPtr> parseAnd() {
    GPTQ_ASSIGN(ExprPtr left, parseNot());
    while (acceptName("and")) {
      GPTQ_ASSIGN(ExprPtr right, parseNot());
      GPTQ_ASSIGN(left, binary("and", std::move(left), std::move(right)));
    }
    return left;
  }

  Expected<ExprPtr> parseNot() {
    int count = 0;
    while (acceptName("not"))
      ++count;
    GPTQ_ASSIGN(ExprPtr value, parseComparison());
    // Beyond the second, a `not` undoes another.
    for (int i = count > 2 ? 2 - count % 2 : 0; i < std::min(count, 2); ++i) {
      GPTQ_ASSIGN(value,
                  make(Expr::Kind::Unary, "not", pack(std::move(value))));
    }
    return value;
  }

  Expected<ExprPtr> parseComparison() {
    GPTQ_ASSIGN(ExprPtr left, parseSum());
    while (true) {
      std::string op;
      for (const char *candidate : {"==", "!=", "<=", ">=", "<", ">"})
        if (accept(candidate)) {
          op = candidate;
          break;
        }
      if (op.empty() && acceptName("in"))
        op = "in";
      if (op.empty() && isName("not") &&
          tokens[at + 1].kind == Token::Kind::Name &&
          tokens[at + 1].text == "in") {
        at += 2;
        op = "not in";
      }
      if (op.empty())
        return left;
      GPTQ_ASSIGN(ExprPtr right, parseSum());
      GPTQ_ASSIGN(left, binary(op, std::move(left), std::move(right)));
    }
  }

  Expected<ExprPtr> parseSum() {
    GPTQ_ASSIGN(ExprPtr left, parseConcat());
    while (isOperator("+") || isOperator("-")) {
      std::string op = take().text;
      GPTQ_ASSIGN(ExprPtr right, parseConcat());
      GPTQ_ASSIGN(left, binary(op, std::move(left), std::move(right)));
    }
    return left;
  }

  Expected<ExprPtr> parseConcat() {
    GPTQ_ASSIGN(ExprPtr left, parseProduct());
    while (accept("~")) {
      GPTQ_ASSIGN(ExprPtr right, parseProduct());
      GPTQ_ASSIGN(left, binary("~", std::move(left), std::move(right)));
    }
    return left;
  }

  Expected<ExprPtr> parseProduct() {
    GPTQ_ASSIGN(ExprPtr left, parseUnary());
    while (isOperator("*") || isOperator("/") || isOperator("//") ||
           isOperator("%")) {
      std::string op = take().text;
      GPTQ_ASSIGN(ExprPtr right, parseUnary());
      GPTQ_ASSIGN(left, binary(op, std::move(left), std::move(right)));
    }
    return left;
  }

  Expected<ExprPtr> parseUnary() {
    if (isOperator("-") || isOperator("+")) {
      std::string op = take().text;
      if (++recursion > maxNesting)
        return fail("an expression is nested too deeply");
      GPTQ_ASSIGN(ExprPtr value, parseUnary());
      --recursion;
      return make(Expr::Kind::Unary, op, pack(std::move(value)));
    }
    GPTQ_ASSIGN(ExprPtr value, parsePrimary());
    GPTQ_ASSIGN(value, parsePostfix(std::move(value)));
    if (isOperator("**"))
      return fail("the operator '**' is not supported");
    return value;
  }

  Expected<ExprPtr> parsePrimary() {
    Token token = take();
    switch (token.kind) {
    case Token::Kind::End:
      return fail("an expression is missing");
    case Token::Kind::Integer:
      return literal(
          Value(int64_t(std::strtoll(token.text.c_str(), nullptr, 10))));
    case Token::Kind::Float:
      return literal(Value(std::strtod(token.text.c_str(), nullptr)));
    case Token::Kind::String: {
      // Neighbouring strings are one.
      while (peek().kind == Token::Kind::String)
        token.text += take().text;
      return literal(Value(std::move(token.text)));
    }
    case Token::Kind::Name:
      if (token.text == "true" || token.text == "True")
        return literal(Value(true));
      if (token.text == "false" || token.text == "False")
        return literal(Value(false));
      if (token.text == "none" || token.text == "None")
        return literal(Value(None{}));
      return make(Expr::Kind::Name, token.text, {});
    case Token::Kind::Operator:
      break;
    }
    if (token.text == "(") {
      GPTQ_ASSIGN(ExprPtr value, parseExpr());
      if (isOperator(","))
        return fail("a tuple is not supported");
      GPTQ_TRY(expect(")"));
      return value;
    }
    if (token.text == "[") {
      std::vector<ExprPtr> items;
      while (!isOperator("]")) {
        GPTQ_ASSIGN(ExprPtr item, parseExpr());
        items.push_back(std::move(item));
        if (!accept(","))
          break;
      }
      GPTQ_TRY(expect("]"));
      return make(Expr::Kind::List, "", std::move(items));
    }
    if (token.text == "{") {
      // Keys and values in turn.
      std::vector<ExprPtr> items;
      while (!isOperator("}")) {
        GPTQ_ASSIGN(ExprPtr key, parseExpr());
        items.push_back(std::move(key));
        GPTQ_TRY(expect(":"));
        GPTQ_ASSIGN(ExprPtr value, parseExpr());
        items.push_back(std::move(value));
        if (!accept(","))
          break;
      }
      GPTQ_TRY(expect("}"));
      return make(Expr::Kind::Dict, "", std::move(items));
    }
    return fail("unexpected " + quoteForMessage(token.text));
  }

  Expected<ExprPtr> literal(Value value) {
    GPTQ_ASSIGN(ExprPtr e, make(Expr::Kind::Literal, "", {}));
    e->literal = std::move(value);
    return e;
  }

  /// Reads `a, b, name=c)` behind an opening parenthesis.
  Status parseArguments(std::vector<ExprPtr> &positional,
                        std::vector<std::pair<std::string, ExprPtr>> &named) {
    while (!isOperator(")")) {
      if (peek().kind == Token::Kind::Name &&
          tokens[at + 1].kind == Token::Kind::Operator &&
          tokens[at + 1].text == "=") {
        std::string name = take().text;
        ++at;
        GPTQ_ASSIGN(ExprPtr value, parseExpr());
        named.emplace_back(name, std::move(value));
      } else {
        GPTQ_ASSIGN(ExprPtr value, parseExpr());
        positional.push_back(std::move(value));
      }
      if (!accept(","))
        break;
    }
    return expect(")");
  }

  /// Adds named arguments to a node and to its depth.
  Status attach(Expr &e, std::vector<std::pair<std::string, ExprPtr>> named) {
    for (const auto &[name, value] : named)
      e.depth = std::max(e.depth, value->depth + 1);
    e.named = std::move(named);
    if (e.depth > maxNesting)
      return fail("an expression is nested too deeply");
    return {};
  }

  Expected<ExprPtr> parsePostfix(ExprPtr value) {
    while (true) {
      if (accept(".")) {
        if (peek().kind != Token::Kind::Name)
          return fail("expected the name of an attribute");
        GPTQ_ASSIGN(value, make(Expr::Kind::Attribute, take().text,
                                pack(std::move(value))));
      } else if (accept("[")) {
        ExprPtr bounds[3];
        int count = 0;
        bool isSlice = false;
        while (!isOperator("]")) {
          if (accept(":")) {
            isSlice = true;
            if (++count > 2)
              return fail("a slice has too many bounds");
            continue;
          }
          if (bounds[count])
            return fail("unexpected " + quoteForMessage(peek().text));
          GPTQ_ASSIGN(bounds[count], parseExpr());
        }
        GPTQ_TRY(expect("]"));
        if (isSlice) {
          GPTQ_ASSIGN(value,
                      make(Expr::Kind::Slice, "",
                           pack(std::move(value), std::move(bounds[0]),
                                std::move(bounds[1]), std::move(bounds[2]))));
        } else {
          if (!bounds[0])
            return fail("an index is missing");
          GPTQ_ASSIGN(value,
                      make(Expr::Kind::Index, "",
                           pack(std::move(value), std::move(bounds[0]))));
        }
      } else if (accept("(")) {
        std::vector<ExprPtr> operands;
        operands.push_back(std::move(value));
        std::vector<std::pair<std::string, ExprPtr>> named;
        GPTQ_TRY(parseArguments(operands, named));
        GPTQ_ASSIGN(value, make(Expr::Kind::Call, "", std::move(operands)));
        GPTQ_TRY(attach(*value, std::move(named)));
      } else if (accept("|")) {
        if (peek().kind != Token::Kind::Name)
          return fail("expected the name of a filter");
        std::string name = take().text;
        std::vector<ExprPtr> operands;
        operands.push_back(std::move(value));
        std::vector<std::pair<std::string, ExprPtr>> named;
        if (accept("("))
          GPTQ_TRY(parseArguments(operands, named));
        GPTQ_ASSIGN(value, make(Expr::Kind::Filter, name, std::move(operands)));
        GPTQ_TRY(attach(*value, std::move(named)));
      } else if (acceptName("is")) {
        bool isNegated = acceptName("not");
        if (peek().kind != Token::Kind::Name)
          return fail("expected the name of a test");
        std::string name = take().text;
        GPTQ_ASSIGN(value,
                    make(Expr::Kind::Test, name, pack(std::move(value))));
        value->isNegated = isNegated;
      } else {
        return value;
      }
    }
  }

  std::vector<Piece> pieces;
  size_t piece = 0;
  std::vector<Token> tokens = {Token()};
  size_t at = 0;
  int line = 1;
  int loops = 0;
  int recursion = 0;
  std::string endName;
};

//===----------------------------------------------------------------------===//
// Evaluation
//===----------------------------------------------------------------------===//

std::string strip(const std::string &s, std::string_view set, bool left,
                  bool right) {
  size_t begin = 0, end = s.size();
  while (left && begin < end && set.find(s[begin]) != std::string_view::npos)
    ++begin;
  while (right && end > begin && set.find(s[end - 1]) != std::string_view::npos)
    --end;
  return s.substr(begin, end - begin);
}

constexpr std::string_view whiteSpace = " \t\n\r\f\v";

class Renderer {
public:
  using Scope = std::vector<std::pair<std::string, Value>>;

  explicit Renderer(Scope globals) { scopes.push_back(std::move(globals)); }

  Status render(const Block &block, std::string &out) {
    Flow flow = Flow::Next;
    return renderBlock(block, out, flow);
  }

private:
  enum class Flow { Next, Break, Continue };

  Status fail(int line, const std::string &what) {
    return templateError(line, what);
  }

  /// Counts work, so that no template keeps its reader busy for long.
  Status spend(int line, int64_t effort) {
    used += effort;
    if (used > maxEffort)
      return fail(line, "rendering takes too long or makes too much text");
    return {};
  }

  Value *lookUp(const std::string &name) {
    for (auto scope = scopes.rbegin(); scope != scopes.rend(); ++scope)
      for (auto &[key, value] : *scope)
        if (key == name)
          return &value;
    return nullptr;
  }

  void assign(const std::string &name, Value value) {
    for (auto &[key, old] : scopes.back())
      if (key == name) {
        old = std::move(value);
        return;
      }
    scopes.back().emplace_back(name, std::move(value));
  }

  Status renderBlock(const Block &block, std::string &out, Flow &flow) {
    for (const Statement &s : block) {
      GPTQ_TRY(spend(s.line, 1));
      switch (s.kind) {
      case Statement::Kind::Text:
        GPTQ_TRY(spend(s.line, int64_t(s.text.size())));
        out += s.text;
        break;
      case Statement::Kind::Output: {
        GPTQ_ASSIGN(Value value, eval(*s.exprs[0]));
        std::string written = text(value);
        GPTQ_TRY(spend(s.line, int64_t(written.size())));
        out += written;
        break;
      }
      case Statement::Kind::If: {
        size_t branch = 0;
        for (; branch < s.exprs.size(); ++branch) {
          GPTQ_ASSIGN(Value condition, eval(*s.exprs[branch]));
          if (truthy(condition))
            break;
        }
        if (branch < s.bodies.size())
          GPTQ_TRY(renderBlock(s.bodies[branch], out, flow));
        break;
      }
      case Statement::Kind::For:
        GPTQ_TRY(renderLoop(s, out));
        break;
      case Statement::Kind::Set:
        GPTQ_TRY(renderSet(s));
        break;
      case Statement::Kind::Break:
        flow = Flow::Break;
        break;
      case Statement::Kind::Continue:
        flow = Flow::Continue;
        break;
      }
      if (flow != Flow::Next)
        return {};
    }
    return {};
  }

  /// The elements a loop runs over.
  Expected<std::vector<Value>> iterate(const Value &v, int line) {
    std::vector<Value> items;
    if (v.is<Undefined>())
      return items;
    if (const List *list = v.list()) {
      GPTQ_TRY(spend(line, int64_t(list->items.size())));
      return list->items;
    }
    if (const Dict *dict = v.dict(); dict && !dict->isNamespace) {
      for (const auto &[key, value] : dict->items)
        items.emplace_back(key);
      return items;
    }
    if (const std::string *s = v.string()) {
      GPTQ_TRY(spend(line, int64_t(s->size())));
      for (size_t i = 0; i < s->size();) {
        size_t n = 1;
        while (i + n < s->size() && ((*s)[i + n] & 0xc0) == 0x80)
          ++n;
        items.emplace_back(s->substr(i, n));
        i += n;
      }
      return items;
    }
    return fail(line, std::string("cannot loop over ") + kindOf(v));
  }

  Status bind(const Statement &s, const Value &item) {
    if (s.names.size() == 1) {
      assign(s.names[0], item);
      return {};
    }
    const List *parts = item.list();
    if (!parts || parts->items.size() != s.names.size())
      return fail(s.line, "the loop's elements do not have " +
                              std::to_string(s.names.size()) + " parts");
    for (size_t i = 0; i < s.names.size(); ++i)
      assign(s.names[i], parts->items[i]);
    return {};
  }

  Status renderLoop(const Statement &s, std::string &out) {
    GPTQ_ASSIGN(Value list, eval(*s.exprs[0]));
    GPTQ_ASSIGN(std::vector<Value> items, iterate(list, s.line));
    if (s.exprs.size() > 1) {
      std::vector<Value> kept;
      for (Value &item : items) {
        GPTQ_TRY(spend(s.line, iterationEffort));
        scopes.emplace_back();
        Status bound = bind(s, item);
        Expected<Value> condition =
            bound.ok() ? eval(*s.exprs[1]) : Expected<Value>(bound);
        scopes.pop_back();
        if (!condition)
          return condition.status();
        if (truthy(*condition))
          kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    Flow flow = Flow::Next;
    if (items.empty())
      return renderBlock(s.bodies[1], out, flow);
    int64_t count = int64_t(items.size());
    for (int64_t i = 0; i < count; ++i) {
      GPTQ_TRY(spend(s.line, iterationEffort));
      scopes.emplace_back();
      auto loop = std::make_shared<Dict>();
      loop->set("index", Value(i + 1));
      loop->set("index0", Value(i));
      loop->set("revindex", Value(count - i));
      loop->set("revindex0", Value(count - i - 1));
      loop->set("first", Value(i == 0));
      loop->set("last", Value(i + 1 == count));
      loop->set("length", Value(count));
      if (i > 0)
        loop->set("previtem", items[i - 1]);
      if (i + 1 < count)
        loop->set("nextitem", items[i + 1]);
      assign("loop", Value(std::move(loop)));
      Status status = bind(s, items[i]);
      if (status.ok())
        status = renderBlock(s.bodies[0], out, flow);
      scopes.pop_back();
      GPTQ_TRY(status);
      if (flow == Flow::Break)
        break;
      flow = Flow::Next;
    }
    return {};
  }

  Status renderSet(const Statement &s) {
    Value value;
    if (s.exprs.empty()) {
      std::string block;
      Flow flow = Flow::Next;
      GPTQ_TRY(renderBlock(s.bodies[0], block, flow));
      value = Value(std::move(block));
    } else {
      GPTQ_ASSIGN(value, eval(*s.exprs[0]));
    }
    if (s.names.size() == 1) {
      assign(s.names[0], std::move(value));
      return {};
    }
    Value *target = lookUp(s.names[0]);
    if (!target || !target->dict() || !target->dict()->isNamespace)
      return fail(s.line, "'" + s.names[0] + "' is not a namespace");
    GPTQ_TRY(checkElement(s.line, value));
    target->dict()->set(s.names[1], std::move(value));
    return {};
  }

  /// A value that is to be part of another.
  Status checkElement(int line, const Value &value) {
    if (value.dict() && value.dict()->isNamespace)
      return fail(line, "a namespace inside another value is not supported");
    if (depthOf(value) >= maxValueDepth)
      return fail(line, "values are nested too deeply");
    return {};
  }

  Expected<Value> makeList(int line, std::vector<Value> items) {
    auto list = std::make_shared<List>();
    GPTQ_TRY(spend(line, int64_t(items.size())));
    for (const Value &item : items) {
      GPTQ_TRY(checkElement(line, item));
      list->depth = std::max(list->depth, depthOf(item) + 1);
    }
    list->items = std::move(items);
    return Value(std::move(list));
  }

  Expected<Value> makeString(int line, std::string s) {
    GPTQ_TRY(spend(line, int64_t(s.size())));
    return Value(std::move(s));
  }

  Expected<Value> eval(const Expr &e) {
    GPTQ_TRY(spend(e.line, 1));
    switch (e.kind) {
    case Expr::Kind::Literal:
      if (e.literal.string())
        GPTQ_TRY(spend(e.line, int64_t(e.literal.string()->size())));
      return e.literal;
    case Expr::Kind::Name: {
      Value *value = lookUp(e.name);
      if (!value)
        return Value();
      if (value->string())
        GPTQ_TRY(spend(e.line, int64_t(value->string()->size())));
      return *value;
    }
    case Expr::Kind::List: {
      std::vector<Value> items;
      for (const ExprPtr &operand : e.operands) {
        GPTQ_ASSIGN(Value item, eval(*operand));
        items.push_back(std::move(item));
      }
      return makeList(e.line, std::move(items));
    }
    case Expr::Kind::Dict: {
      auto dict = std::make_shared<Dict>();
      for (size_t i = 0; i + 1 < e.operands.size(); i += 2) {
        GPTQ_ASSIGN(Value key, eval(*e.operands[i]));
        if (!key.string())
          return fail(e.line, "a mapping's key is not a string");
        GPTQ_ASSIGN(Value value, eval(*e.operands[i + 1]));
        GPTQ_TRY(checkElement(e.line, value));
        dict->depth = std::max(dict->depth, depthOf(value) + 1);
        dict->set(*key.string(), std::move(value));
      }
      return Value(std::move(dict));
    }
    case Expr::Kind::Unary: {
      GPTQ_ASSIGN(Value value, eval(*e.operands[0]));
      if (e.name == "not")
        return Value(!truthy(value));
      if (auto i = integer(value))
        return Value(e.name == "-" ? int64_t(0 - uint64_t(*i)) : *i);
      if (auto d = number(value))
        return Value(e.name == "-" ? -*d : *d);
      return fail(e.line,
                  std::string("expected a number, found ") + kindOf(value));
    }
    case Expr::Kind::Binary:
      return evalBinary(e);
    case Expr::Kind::Conditional: {
      GPTQ_ASSIGN(Value condition, eval(*e.operands[1]));
      if (truthy(condition))
        return eval(*e.operands[0]);
      if (e.operands[2])
        return eval(*e.operands[2]);
      return Value();
    }
    case Expr::Kind::Attribute: {
      GPTQ_ASSIGN(Value object, eval(*e.operands[0]));
      return member(e, object, e.name);
    }
    case Expr::Kind::Index: {
      GPTQ_ASSIGN(Value object, eval(*e.operands[0]));
      GPTQ_ASSIGN(Value index, eval(*e.operands[1]));
      if (index.string())
        return member(e, object, *index.string());
      std::optional<int64_t> i = integer(index);
      const List *list = object.list();
      if (!i || !list)
        return fail(e.line, std::string("cannot index ") + kindOf(object) +
                                " by " + kindOf(index));
      int64_t size = int64_t(list->items.size());
      int64_t position = *i < 0 ? *i + size : *i;
      return position >= 0 && position < size ? list->items[position] : Value();
    }
    case Expr::Kind::Slice:
      return evalSlice(e);
    case Expr::Kind::Call:
      return evalCall(e);
    case Expr::Kind::Filter:
      return evalFilter(e);
    case Expr::Kind::Test:
      return evalTest(e);
    }
    return Value();
  }

  Expected<Value> member(const Expr &e, const Value &object,
                         const std::string &name) {
    if (object.is<Undefined>())
      return fail(e.line, "the attribute " + quoteForMessage(name) +
                              " of an undefined value");
    if (const Dict *dict = object.dict())
      if (const Value *value = dict->find(name))
        return *value;
    return Value();
  }

  Expected<Value> evalBinary(const Expr &e) {
    GPTQ_ASSIGN(Value a, eval(*e.operands[0]));
    const std::string &op = e.name;
    if (op == "and" && !truthy(a))
      return a;
    if (op == "or" && truthy(a))
      return a;
    GPTQ_ASSIGN(Value b, eval(*e.operands[1]));
    if (op == "and" || op == "or")
      return b;
    if (op == "==" || op == "!=") {
      GPTQ_TRY(spend(e.line, 64));
      return Value(equal(a, b) == (op == "=="));
    }
    if (op == "in" || op == "not in") {
      GPTQ_ASSIGN(bool found, contains(e, b, a));
      return Value(found == (op == "in"));
    }
    if (op == "~")
      return makeString(e.line, text(a) + text(b));
    if (op == "+") {
      if (a.string() && b.string())
        return makeString(e.line, *a.string() + *b.string());
      if (a.list() && b.list()) {
        std::vector<Value> items = a.list()->items;
        items.insert(items.end(), b.list()->items.begin(),
                     b.list()->items.end());
        return makeList(e.line, std::move(items));
      }
    }
    if (op == "<" || op == ">" || op == "<=" || op == ">=") {
      int order = 0;
      if (a.string() && b.string()) {
        order = a.string()->compare(*b.string());
      } else {
        auto x = number(a), y = number(b);
        if (!x || !y)
          return fail(e.line, std::string("cannot compare ") + kindOf(a) +
                                  " with " + kindOf(b));
        order = *x < *y ? -1 : *x > *y;
      }
      return Value(op == "<"    ? order < 0
                   : op == ">"  ? order > 0
                   : op == "<=" ? order <= 0
                                : order >= 0);
    }
    return arithmetic(e, a, b);
  }

  Expected<Value> arithmetic(const Expr &e, const Value &a, const Value &b) {
    const std::string &op = e.name;
    auto i = integer(a), j = integer(b);
    if (i && j && op != "/") {
      int64_t r = 0;
      bool overflows = false;
      if (op == "+")
        overflows = __builtin_add_overflow(*i, *j, &r);
      else if (op == "-")
        overflows = __builtin_sub_overflow(*i, *j, &r);
      else if (op == "*")
        overflows = __builtin_mul_overflow(*i, *j, &r);
      else if (*j == 0 || (*j == -1 && *i == INT64_MIN))
        return fail(e.line, "division by " + std::to_string(*j));
      else {
        // Python rounds down, and a remainder has the divisor's sign.
        int64_t q = *i / *j, m = *i % *j;
        if (m != 0 && (m < 0) != (*j < 0)) {
          --q;
          m += *j;
        }
        r = op == "//" ? q : m;
      }
      if (overflows)
        return fail(e.line, "an integer is too large");
      return Value(r);
    }
    auto x = number(a), y = number(b);
    if (x && y && (op == "+" || op == "-" || op == "*" || op == "/")) {
      if (op == "/" && *y == 0)
        return fail(e.line, "division by 0");
      return Value(op == "+"   ? *x + *y
                   : op == "-" ? *x - *y
                   : op == "*" ? *x * *y
                               : *x / *y);
    }
    return fail(e.line, "the operator '" + op + "' does not take " + kindOf(a) +
                            " and " + kindOf(b));
  }

  Expected<bool> contains(const Expr &e, const Value &container,
                          const Value &item) {
    if (const List *list = container.list()) {
      GPTQ_TRY(spend(e.line, int64_t(list->items.size())));
      return std::any_of(list->items.begin(), list->items.end(),
                         [&](const Value &v) { return equal(v, item); });
    }
    if (const Dict *dict = container.dict())
      return item.string() && dict->find(*item.string());
    if (container.string() && item.string()) {
      GPTQ_TRY(spend(e.line, int64_t(container.string()->size())));
      return container.string()->find(*item.string()) != std::string::npos;
    }
    if (container.is<Undefined>())
      return false;
    return fail(e.line, std::string("'in' does not take ") + kindOf(container));
  }

  Expected<Value> evalSlice(const Expr &e) {
    GPTQ_ASSIGN(Value object, eval(*e.operands[0]));
    std::optional<int64_t> bounds[3];
    for (int i = 0; i < 3; ++i)
      if (e.operands[i + 1]) {
        GPTQ_ASSIGN(Value bound, eval(*e.operands[i + 1]));
        if (bound.is<None>())
          continue;
        bounds[i] = integer(bound);
        if (!bounds[i])
          return fail(e.line, "a slice's bound is not an integer");
      }
    bool isText = object.string();
    if (!isText && !object.list())
      return fail(e.line, std::string("cannot slice ") + kindOf(object));
    GPTQ_ASSIGN(std::vector<Value> items, iterate(object, e.line));
    int64_t size = int64_t(items.size()), step = bounds[2].value_or(1);
    if (step != 1 && step != -1)
      return fail(e.line,
                  "a slice's step other than 1 and -1 is not supported");
    // Python's rule: negative bounds count from the end, then all are clipped
    // to the places the walk can stand at.
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
    auto clip = [&](std::optional<int64_t> bound, int64_t otherwise) {
      if (!bound)
        return otherwise;
      int64_t b = *bound < 0 ? *bound + size : *bound;
      return std::clamp(b, low, high);
    };
    int64_t begin = clip(bounds[0], step > 0 ? low : high);
    int64_t end = clip(bounds[1], step > 0 ? high : low);
    std::vector<Value> out;
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step)
      out.push_back(items[i]);
    if (!isText)
      return makeList(e.line, std::move(out));
    std::string joined;
    for (const Value &v : out)
      joined += *v.string();
    return makeString(e.line, std::move(joined));
  }

  /// Evaluates all arguments of a call or filter but the first operand.
  Status evalArguments(const Expr &e, std::vector<Value> &positional,
                       Scope &named) {
    for (size_t i = 1; i < e.operands.size(); ++i) {
      GPTQ_ASSIGN(Value value, eval(*e.operands[i]));
      positional.push_back(std::move(value));
    }
    for (const auto &[name, expr] : e.named) {
      GPTQ_ASSIGN(Value value, eval(*expr));
      named.emplace_back(name, std::move(value));
    }
    return {};
  }

  Expected<Value> evalCall(const Expr &e) {
    const Expr &callee = *e.operands[0];
    std::vector<Value> args;
    Scope named;
    if (callee.kind == Expr::Kind::Attribute) {
      GPTQ_ASSIGN(Value object, eval(*callee.operands[0]));
      GPTQ_TRY(evalArguments(e, args, named));
      return callMethod(e, object, callee.name, args);
    }
    if (callee.kind != Expr::Kind::Name || lookUp(callee.name))
      return fail(e.line, "the called value is not a function");
    GPTQ_TRY(evalArguments(e, args, named));
    const std::string &name = callee.name;
    if (name == "raise_exception")
      return Status(StatusCode::InvalidArgument,
                    "the chat template refuses the messages: " +
                        (args.empty() ? std::string() : text(args[0])));
    if (name == "namespace" && args.empty()) {
      auto ns = std::make_shared<Dict>();
      ns->isNamespace = true;
      for (auto &[key, value] : named) {
        GPTQ_TRY(checkElement(e.line, value));
        ns->set(key, std::move(value));
      }
      return Value(std::move(ns));
    }
    if (name == "dict" && args.empty()) {
      auto dict = std::make_shared<Dict>();
      for (auto &[key, value] : named) {
        GPTQ_TRY(checkElement(e.line, value));
        dict->depth = std::max(dict->depth, depthOf(value) + 1);
        dict->set(key, std::move(value));
      }
      return Value(std::move(dict));
    }
    if (name == "range" && !args.empty() && args.size() <= 3) {
      int64_t numbers[3] = {0, 0, 1};
      for (size_t i = 0; i < args.size(); ++i) {
        auto n = integer(args[i]);
        if (!n)
          return fail(e.line, "range takes integers");
        numbers[args.size() == 1 ? 1 : i] = *n;
      }
      auto [begin, end, step] = numbers;
      if (step == 0)
        return fail(e.line, "range takes no step of 0");
      std::vector<Value> items;
      for (int64_t i = begin; step > 0 ? i < end : i > end;) {
        GPTQ_TRY(spend(e.line, 1));
        items.emplace_back(i);
        if (__builtin_add_overflow(i, step, &i))
          break;
      }
      return makeList(e.line, std::move(items));
    }
    if (name == "strftime_now" && args.size() == 1 && args[0].string()) {
      std::time_t now = std::time(nullptr);
      std::tm local{};
      ::localtime_r(&now, &local);
      char buffer[256];
      size_t n = std::strftime(buffer, sizeof(buffer),
                               args[0].string()->c_str(), &local);
      return Value(std::string(buffer, n));
    }
    return fail(e.line, "the function " + quoteForMessage(name) +
                            " with these arguments is not supported");
  }

  Expected<Value> callMethod(const Expr &e, const Value &object,
                             const std::string &name,
                             const std::vector<Value> &args) {
    auto unsupported = [&] {
      return fail(e.line, "the method " + quoteForMessage(name) + " of " +
                              kindOf(object) +
                              " with these arguments is not supported");
    };
    auto argument = [&](size_t i) -> const std::string * {
      return i < args.size() ? args[i].string() : nullptr;
    };
    if (const std::string *s = object.string()) {
      GPTQ_TRY(spend(e.line, int64_t(s->size())));
      if ((name == "strip" || name == "lstrip" || name == "rstrip") &&
          (args.empty() || argument(0)))
        return makeString(e.line,
                          strip(*s, args.empty() ? whiteSpace : *argument(0),
                                name != "rstrip", name != "lstrip"));
      if (name == "startswith" && argument(0))
        return Value(s->compare(0, argument(0)->size(), *argument(0)) == 0);
      if (name == "endswith" && argument(0))
        return Value(s->size() >= argument(0)->size() &&
                     s->compare(s->size() - argument(0)->size(),
                                std::string::npos, *argument(0)) == 0);
      if (name == "upper" || name == "lower")
        return changeCase(e, *s, name == "upper");
      if (name == "replace" && argument(0) && argument(1) && args.size() == 2)
        return replace(e, *s, *argument(0), *argument(1));
      if (name == "split" && args.size() <= 1 &&
          (args.empty() || (argument(0) && !argument(0)->empty())))
        return splitText(e, *s, args.empty() ? nullptr : argument(0));
      return unsupported();
    }
    if (const Dict *dict = object.dict()) {
      if (name == "items" && args.empty())
        return items(e, *dict);
      if ((name == "keys" || name == "values") && args.empty()) {
        std::vector<Value> out;
        for (const auto &[key, value] : dict->items)
          out.push_back(name == "keys" ? Value(key) : value);
        return makeList(e.line, std::move(out));
      }
      if (name == "get" && argument(0)) {
        if (const Value *value = dict->find(*argument(0)))
          return *value;
        return args.size() > 1 ? args[1] : Value(None{});
      }
    }
    return unsupported();
  }

  Expected<Value> changeCase(const Expr &e, std::string s, bool up) {
    for (char &c : s)
      if ((unsigned char)c < 0x80)
        c = char(up ? std::toupper(c) : std::tolower(c));
    return makeString(e.line, std::move(s));
  }

  Expected<Value> replace(const Expr &e, const std::string &s,
                          const std::string &from, const std::string &to) {
    if (from.empty())
      return fail(e.line, "replacing an empty text is not supported");
    std::string out;
    size_t at = 0;
    for (size_t hit; (hit = s.find(from, at)) != std::string::npos;
         at = hit + from.size()) {
      GPTQ_TRY(spend(e.line, int64_t(hit - at + to.size())));
      out.append(s, at, hit - at);
      out += to;
    }
    return makeString(e.line, out.append(s, at, std::string::npos));
  }

  Expected<Value> splitText(const Expr &e, const std::string &s,
                            const std::string *separator) {
    std::vector<Value> out;
    if (!separator) {
      for (size_t i = 0; i < s.size();) {
        size_t begin = s.find_first_not_of(whiteSpace, i);
        if (begin == std::string::npos)
          break;
        i = std::min(s.find_first_of(whiteSpace, begin), s.size());
        out.emplace_back(s.substr(begin, i - begin));
      }
      return makeList(e.line, std::move(out));
    }
    size_t at = 0;
    for (size_t hit; (hit = s.find(*separator, at)) != std::string::npos;
         at = hit + separator->size())
      out.emplace_back(s.substr(at, hit - at));
    out.emplace_back(s.substr(at));
    return makeList(e.line, std::move(out));
  }

  Expected<Value> items(const Expr &e, const Dict &dict) {
    std::vector<Value> out;
    for (const auto &[key, value] : dict.items) {
      GPTQ_ASSIGN(Value pair, makeList(e.line, {Value(key), value}));
      out.push_back(std::move(pair));
    }
    return makeList(e.line, std::move(out));
  }

  Expected<Value> evalFilter(const Expr &e) {
    GPTQ_ASSIGN(Value value, eval(*e.operands[0]));
    std::vector<Value> args;
    Scope named;
    GPTQ_TRY(evalArguments(e, args, named));
    const std::string &name = e.name;
    if (name == "trim" && args.empty())
      return makeString(e.line, strip(text(value), whiteSpace, true, true));
    if ((name == "length" || name == "count") && args.empty()) {
      if (const Dict *dict = value.dict())
        return Value(int64_t(dict->items.size()));
      GPTQ_ASSIGN(std::vector<Value> list, iterate(value, e.line));
      return Value(int64_t(list.size()));
    }
    if (name == "tojson") {
      int64_t indent = 0;
      for (const auto &[key, v] : named)
        if (key == "indent" && integer(v))
          indent = std::clamp<int64_t>(*integer(v), 0, 16);
        else if (key != "ensure_ascii")
          return fail(e.line, "the argument " + quoteForMessage(key) +
                                  " of tojson is not supported");
      std::string out;
      appendJson(value, int(indent), 0, out);
      return makeString(e.line, std::move(out));
    }
    if (name == "default" || name == "d") {
      bool falseToo = args.size() > 1 && truthy(args[1]);
      for (const auto &[key, v] : named)
        if (key == "boolean")
          falseToo = truthy(v);
      bool use = value.is<Undefined>() || (falseToo && !truthy(value));
      return use ? (args.empty() ? Value(std::string()) : args[0]) : value;
    }
    if (name == "upper" || name == "lower")
      return changeCase(e, text(value), name == "upper");
    if (name == "capitalize") {
      std::string s = text(value);
      for (size_t i = 0; i < s.size(); ++i)
        if ((unsigned char)s[i] < 0x80)
          s[i] = char(i ? std::tolower(s[i]) : std::toupper(s[i]));
      return makeString(e.line, std::move(s));
    }
    if (name == "string" || name == "safe")
      return makeString(e.line, text(value));
    if (name == "int") {
      if (auto d = number(value))
        return Value(int64_t(std::clamp(*d, -1e15, 1e15)));
      return Value(int64_t(
          value.string() ? std::strtoll(value.string()->c_str(), nullptr, 10)
                         : 0));
    }
    if (name == "list") {
      GPTQ_ASSIGN(std::vector<Value> list, iterate(value, e.line));
      return makeList(e.line, std::move(list));
    }
    if (name == "items" && value.dict())
      return items(e, *value.dict());
    if ((name == "first" || name == "last") && args.empty()) {
      GPTQ_ASSIGN(std::vector<Value> list, iterate(value, e.line));
      if (list.empty())
        return Value();
      return name == "first" ? list.front() : list.back();
    }
    if (name == "join" && args.size() <= 1) {
      GPTQ_ASSIGN(std::vector<Value> list, iterate(value, e.line));
      std::string out, separator = args.empty() ? "" : text(args[0]);
      for (size_t i = 0; i < list.size(); ++i) {
        std::string part = (i ? separator : "") + text(list[i]);
        GPTQ_TRY(spend(e.line, int64_t(part.size())));
        out += part;
      }
      return makeString(e.line, std::move(out));
    }
    if (name == "replace" && args.size() == 2 && args[0].string() &&
        args[1].string())
      return replace(e, text(value), *args[0].string(), *args[1].string());
    if ((name == "selectattr" || name == "rejectattr") && !args.empty() &&
        args[0].string()) {
      GPTQ_ASSIGN(std::vector<Value> list, iterate(value, e.line));
      std::vector<Value> out;
      for (const Value &item : list) {
        GPTQ_ASSIGN(Value attribute, member(e, item, *args[0].string()));
        bool holds = truthy(attribute);
        if (args.size() == 3 && args[1].string() &&
            (*args[1].string() == "equalto" || *args[1].string() == "=="))
          holds = equal(attribute, args[2]);
        else if (args.size() > 1)
          return fail(e.line, "this use of the filter " +
                                  quoteForMessage(name) + " is not supported");
        if (holds == (name == "selectattr"))
          out.push_back(item);
      }
      return makeList(e.line, std::move(out));
    }
    return fail(e.line, "the filter " + quoteForMessage(name) +
                            " with these arguments is not supported");
  }

  Expected<Value> evalTest(const Expr &e) {
    GPTQ_ASSIGN(Value value, eval(*e.operands[0]));
    const std::string &name = e.name;
    bool holds = false;
    // Templates ask whether this function is there before they call it.
    if (name == "defined" && e.operands[0]->name == "strftime_now")
      holds = true;
    else if (name == "defined")
      holds = !value.is<Undefined>();
    else if (name == "undefined")
      holds = value.is<Undefined>();
    else if (name == "none")
      holds = value.is<None>();
    else if (name == "string")
      holds = value.string();
    else if (name == "mapping")
      holds = value.dict();
    else if (name == "iterable" || name == "sequence")
      holds = value.list() || value.string() || value.dict();
    else if (name == "number")
      holds = number(value) && !value.is<bool>();
    else if (name == "integer")
      holds = value.is<int64_t>();
    else if (name == "boolean")
      holds = value.is<bool>();
    else if (name == "true" || name == "false")
      holds = value.is<bool>() && truthy(value) == (name == "true");
    else if ((name == "even" || name == "odd") && integer(value))
      holds = (*integer(value) % 2 == 0) == (name == "even");
    else
      return fail(e.line,
                  "the test " + quoteForMessage(name) + " is not supported");
    return Value(holds != e.isNegated);
  }

  std::vector<Scope> scopes;
  int64_t used = 0;
};

} // namespace

//===----------------------------------------------------------------------===//
// ChatTemplate
//===----------------------------------------------------------------------===//

struct ChatTemplate::Impl {
  /// Statements copy what they need; the source itself is not kept.
  Block block;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl)
    : impl(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate &&) noexcept = default;
ChatTemplate &ChatTemplate::operator=(ChatTemplate &&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Expected<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  if (source.size() > maxSourceBytes)
    return makeStatus(StatusCode::Unsupported,
                      "the chat template has %zu bytes, at most %zu are read",
                      source.size(), maxSourceBytes);
  // The language drops one newline at the end.
  if (!source.empty() && source.back() == '\n')
    source.remove_suffix(1);
  GPTQ_ASSIGN(std::vector<Piece> pieces, cutPieces(source));
  Parser parser(std::move(pieces));
  GPTQ_ASSIGN(Block block, parser.parse());
  auto impl = std::make_unique<Impl>();
  impl->block = std::move(block);
  return ChatTemplate(std::move(impl));
}

Expected<std::string>
ChatTemplate::render(const std::vector<ChatMessage> &messages,
                     bool addGenerationPrompt, const std::string &bosToken,
                     const std::string &eosToken) const {
  auto list = std::make_shared<List>();
  list->depth = 2;
  for (const ChatMessage &message : messages) {
    auto dict = std::make_shared<Dict>();
    dict->set("role", Value(message.role));
    dict->set("content", Value(message.content));
    list->items.emplace_back(std::move(dict));
  }
  Renderer renderer({{"messages", Value(std::move(list))},
                     {"add_generation_prompt", Value(addGenerationPrompt)},
                     {"bos_token", Value(bosToken)},
                     {"eos_token", Value(eosToken)}});
  std::string out;
  GPTQ_TRY(renderer.render(impl->block, out));
  return out;
}
