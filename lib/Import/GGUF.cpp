//===- GGUF.cpp - A checked reader of GGUF files --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "lib/Import/GGUF.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/bit.h"
#include "llvm/Support/ConvertUTF.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir::gptq;
using abi::DType;
using abi::Json;
using abi::Status;
using abi::StatusCode;
using llvm::StringRef;

//===----------------------------------------------------------------------===//
// Limits
//===----------------------------------------------------------------------===//

// Far above any published file. They bound the memory that a file's header can
// ask for; every length is held against the bytes that are left, too.
static constexpr uint64_t kMaxEntries = 1 << 16;
static constexpr uint64_t kMaxTensors = 1 << 20;
/// Values of all metadata: vocabularies, their scores and merges.
static constexpr uint64_t kMaxValues = uint64_t(1) << 23;
static constexpr uint64_t kMaxNameBytes = 256;
static constexpr uint64_t kMaxAlignment = 1 << 20;
/// Elements along a dimension.
static constexpr uint64_t kMaxSize = uint64_t(1) << 31;

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

llvm::ArrayRef<BlockType> mlir::gptq::blockTypes() {
  static const BlockType types[] = {
      {0, "f32", 1, 4, DType::F32},      {1, "f16", 1, 2, DType::F16},
      {2, "q4_0", 32, 18, DType::U8},    {3, "q4_1", 32, 20, DType::U8},
      {6, "q5_0", 32, 22, DType::U8},    {7, "q5_1", 32, 24, DType::U8},
      {8, "q8_0", 32, 34, DType::U8},    {12, "q4_k", 256, 144, DType::U8},
      {13, "q5_k", 256, 176, DType::U8}, {14, "q6_k", 256, 210, DType::U8},
      {30, "bf16", 1, 2, DType::BF16},
  };
  return types;
}

const BlockType *mlir::gptq::findBlockType(StringRef name) {
  for (const BlockType &type : blockTypes())
    if (type.name == name)
      return &type;
  return nullptr;
}

/// What the type `id` is called, also where it is not read.
static std::string nameOfType(uint32_t id) {
  static constexpr StringRef names[] = {
      "F32",   "F16",   "Q4_0",    "Q4_1",   "Q4_2",    "Q4_3",  "Q5_0",
      "Q5_1",  "Q8_0",  "Q8_1",    "Q2_K",   "Q3_K",    "Q4_K",  "Q5_K",
      "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL",
      "IQ3_S", "IQ2_S", "IQ4_XS",  "I8",     "I16",     "I32",   "I64",
      "F64",   "IQ1_M", "BF16",    "",       "",        "",      "TQ1_0",
      "TQ2_0", "",      "",        "",       "MXFP4"};
  if (id < std::size(names) && !names[id].empty())
    return names[id].str();
  return "of number " + std::to_string(id);
}

//===----------------------------------------------------------------------===//
// Bytes
//===----------------------------------------------------------------------===//

namespace {

enum ValueType : uint32_t {
  UInt8,
  Int8,
  UInt16,
  Int16,
  UInt32,
  Int32,
  Float32,
  Bool,
  String,
  Array,
  UInt64,
  Int64,
  Float64,
};

/// Reads forward through a file and never beyond its end.
class Cursor {
public:
  Cursor(abi::ByteSpan file, uint64_t at) : file(file), at(at) {}

  uint64_t position() const { return at; }

  abi::Expected<abi::ByteSpan> take(uint64_t bytes, const char *what) {
    if (bytes > file.size - at)
      return abi::makeStatus(StatusCode::InvalidFile,
                             "expected %llu bytes of %s at byte %llu, but the "
                             "file has %zu",
                             (unsigned long long)bytes, what,
                             (unsigned long long)at, file.size);
    abi::ByteSpan span{file.data + at, size_t(bytes)};
    at += bytes;
    return span;
  }
  template <typename T> abi::Expected<T> number(const char *what) {
    GPTQ_ASSIGN(abi::ByteSpan bytes, take(sizeof(T), what));
    return llvm::support::endian::read<T, llvm::endianness::little>(bytes.data);
  }
  abi::Expected<StringRef> string(uint64_t maxBytes, const char *what) {
    GPTQ_ASSIGN(uint64_t size, number<uint64_t>(what));
    if (size > maxBytes)
      return abi::makeStatus(StatusCode::InvalidFile,
                             "expected %s of at most %llu bytes at byte %llu, "
                             "found %llu",
                             what, (unsigned long long)maxBytes,
                             (unsigned long long)at, (unsigned long long)size);
    GPTQ_ASSIGN(abi::ByteSpan bytes, take(size, what));
    StringRef text(reinterpret_cast<const char *>(bytes.data), bytes.size);
    const auto *start = reinterpret_cast<const llvm::UTF8 *>(text.data());
    if (!llvm::isLegalUTF8String(&start, start + text.size()))
      return abi::makeStatus(StatusCode::InvalidFile,
                             "expected UTF-8 for %s that ends at byte %llu",
                             what, (unsigned long long)at);
    return text;
  }

private:
  abi::ByteSpan file;
  uint64_t at;
};

/// Reads metadata, as JSON or past them.
class MetadataReader {
public:
  explicit MetadataReader(Cursor &cursor) : cursor(cursor) {}

  /// One value of `type`; into `out`, unless that is null.
  Status read(uint32_t type, Json *out, bool inArray = false) {
    if (++values > kMaxValues)
      return abi::makeStatus(StatusCode::InvalidFile,
                             "expected metadata of at most %llu values",
                             (unsigned long long)kMaxValues);
    switch (type) {
    case UInt8:
      return readNumber<uint8_t>(out);
    case Int8:
      return readNumber<int8_t>(out);
    case UInt16:
      return readNumber<uint16_t>(out);
    case Int16:
      return readNumber<int16_t>(out);
    case UInt32:
      return readNumber<uint32_t>(out);
    case Int32:
      return readNumber<int32_t>(out);
    case UInt64:
      return readNumber<uint64_t>(out);
    case Int64:
      return readNumber<int64_t>(out);
    case Float32: {
      GPTQ_ASSIGN(uint32_t bits, cursor.number<uint32_t>("a number"));
      if (out)
        *out = double(llvm::bit_cast<float>(bits));
      return Status::success();
    }
    case Float64: {
      GPTQ_ASSIGN(uint64_t bits, cursor.number<uint64_t>("a number"));
      if (out)
        *out = llvm::bit_cast<double>(bits);
      return Status::success();
    }
    case Bool: {
      GPTQ_ASSIGN(uint8_t value, cursor.number<uint8_t>("a truth value"));
      if (value > 1)
        return abi::makeStatus(StatusCode::InvalidFile,
                               "expected a truth value of 0 or 1, found %u",
                               unsigned(value));
      if (out)
        *out = value == 1;
      return Status::success();
    }
    case String: {
      GPTQ_ASSIGN(StringRef text, cursor.string(UINT64_MAX, "a string"));
      if (out)
        *out = text.str();
      return Status::success();
    }
    case Array: {
      if (inArray)
        return abi::makeStatus(StatusCode::Unsupported,
                               "arrays inside arrays are not supported");
      GPTQ_ASSIGN(uint32_t element, cursor.number<uint32_t>("a type"));
      GPTQ_ASSIGN(uint64_t count, cursor.number<uint64_t>("a length"));
      if (out)
        *out = Json::array();
      // Every value takes a byte at least, so that the end of the file or the
      // bound on values stops what no file can hold.
      for (uint64_t i = 0; i < count; ++i) {
        Json value;
        GPTQ_TRY(read(element, out ? &value : nullptr, /*inArray=*/true));
        if (out)
          out->push_back(std::move(value));
      }
      return Status::success();
    }
    }
    return abi::makeStatus(StatusCode::InvalidFile,
                           "expected a value of type 0 to 12, found %u", type);
  }

private:
  template <typename T> Status readNumber(Json *out) {
    GPTQ_ASSIGN(T number, cursor.number<T>("a number"));
    if (out)
      *out = number;
    return Status::success();
  }

  Cursor &cursor;
  uint64_t values = 0;
};

} // namespace

//===----------------------------------------------------------------------===//
// The file
//===----------------------------------------------------------------------===//

/// A key of the metadata and the type of its value.
static abi::Expected<std::pair<StringRef, uint32_t>> readKey(Cursor &cursor) {
  GPTQ_ASSIGN(StringRef key, cursor.string(65535, "a key"));
  GPTQ_ASSIGN(uint32_t type, cursor.number<uint32_t>("a type"));
  return std::pair(key, type);
}

static Status atKey(const Status &status, StringRef key) {
  return status.withContext("key " + abi::quoteForMessage(key));
}

/// Reads what the header says about a tensor; its offset counts from the data.
static abi::Expected<GGUFTensor> readTensor(Cursor &cursor) {
  GGUFTensor tensor;
  GPTQ_ASSIGN(StringRef name,
              cursor.string(kMaxNameBytes, "the name of a tensor"));
  tensor.name = name.str();
  auto broken = [&](const std::string &what) {
    return Status(StatusCode::InvalidFile,
                  "tensor " + abi::quoteForMessage(name) + ": " + what);
  };
  GPTQ_ASSIGN(uint32_t rank, cursor.number<uint32_t>("a rank"));
  if (rank < 1 || rank > 4)
    return broken("expected 1 to 4 dimensions, found " + std::to_string(rank));
  for (uint32_t i = 0; i < rank; ++i) {
    GPTQ_ASSIGN(uint64_t size, cursor.number<uint64_t>("a dimension"));
    if (size < 1 || size > kMaxSize)
      return broken("expected dimensions of 1 to " + std::to_string(kMaxSize) +
                    ", found " + std::to_string(size));
    tensor.shape.push_back(size);
  }
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  GPTQ_ASSIGN(uint32_t id, cursor.number<uint32_t>("a type"));
  for (const BlockType &type : blockTypes())
    if (type.id == id)
      tensor.type = &type;
  if (!tensor.type) {
    std::string known;
    for (const BlockType &type : blockTypes())
      known += (known.empty() ? "" : ", ") + type.name.upper();
    return Status(StatusCode::Unsupported,
                  "tensor " + abi::quoteForMessage(name) + ": the type " +
                      nameOfType(id) + " is not supported, expected one of " +
                      known);
  }
  GPTQ_ASSIGN(tensor.offset, cursor.number<uint64_t>("an offset"));

  if (tensor.shape.back() % tensor.type->block != 0)
    return broken("expected rows in whole blocks of " +
                  std::to_string(tensor.type->block) + ", found " +
                  std::to_string(tensor.shape.back()) + " elements");
  uint64_t blocks = tensor.shape.back() / tensor.type->block;
  for (uint64_t size : llvm::ArrayRef(tensor.shape).drop_back()) {
    bool overflows = false;
    blocks = llvm::SaturatingMultiply(blocks, size, &overflows);
    if (overflows)
      return broken("expected a size that fits 64 bits");
  }
  bool overflows = false;
  tensor.bytes.size = llvm::SaturatingMultiply<uint64_t>(
      blocks, tensor.type->bytes, &overflows);
  if (overflows)
    return broken("expected a size that fits 64 bits");
  return tensor;
}

abi::Expected<GGUFFile> GGUFFile::open(abi::ByteSpan file) {
  GGUFFile result;
  result.file = file;
  Cursor cursor(file, 0);
  GPTQ_ASSIGN(abi::ByteSpan magic, cursor.take(4, "a GGUF file's mark"));
  if (magic.text() != "GGUF")
    return Status(StatusCode::InvalidFile,
                  "expected a GGUF file to start with \"GGUF\", found " +
                      abi::quoteForMessage(magic.text()));
  GPTQ_ASSIGN(uint32_t version, cursor.number<uint32_t>("a version"));
  if (version != 2 && version != 3)
    return abi::makeStatus(
        StatusCode::Unsupported,
        version << 16 == 0 && version != 0
            ? "big-endian GGUF files are not supported (version 0x%08x)"
            : "expected a GGUF file of version 2 or 3, found %u",
        version);
  GPTQ_ASSIGN(uint64_t tensors, cursor.number<uint64_t>("a count"));
  GPTQ_ASSIGN(result.entries, cursor.number<uint64_t>("a count"));
  if (tensors > kMaxTensors || result.entries > kMaxEntries)
    return abi::makeStatus(
        StatusCode::InvalidFile,
        "expected at most %llu tensors and %llu metadata entries, found %llu "
        "and %llu",
        (unsigned long long)kMaxTensors, (unsigned long long)kMaxEntries,
        (unsigned long long)tensors, (unsigned long long)result.entries);

  result.metadataOffset = cursor.position();
  uint64_t alignment = 32;
  MetadataReader metadata(cursor);
  llvm::StringSet<> names;
  for (uint64_t i = 0; i < result.entries; ++i) {
    GPTQ_ASSIGN(auto entry, readKey(cursor));
    auto [key, type] = entry;
    if (!names.insert(key).second)
      return atKey(Status(StatusCode::InvalidFile, "it is there twice"), key);
    Json value;
    const bool isWanted = key == "general.alignment";
    if (Status status = metadata.read(type, isWanted ? &value : nullptr);
        !status.ok())
      return atKey(status, key);
    if (!isWanted)
      continue;
    if (!value.is_number_unsigned() || value.get<uint64_t>() > kMaxAlignment ||
        !llvm::isPowerOf2_64(value.get<uint64_t>()))
      return atKey(abi::makeStatus(StatusCode::InvalidFile,
                                   "expected a power of two up to %llu",
                                   (unsigned long long)kMaxAlignment),
                   key);
    alignment = value.get<uint64_t>();
  }

  names.clear();
  for (uint64_t i = 0; i < tensors; ++i) {
    GPTQ_ASSIGN(GGUFTensor tensor, readTensor(cursor));
    if (!names.insert(tensor.name).second)
      return Status(StatusCode::InvalidFile,
                    "tensor " + abi::quoteForMessage(tensor.name) +
                        ": it is there twice");
    result.list.push_back(std::move(tensor));
  }

  // A position in a file of less than 2^63 bytes, so that this cannot overflow.
  const uint64_t data = llvm::alignTo(cursor.position(), alignment);
  for (GGUFTensor &tensor : result.list) {
    const uint64_t offset = tensor.offset, size = tensor.bytes.size;
    if (offset % alignment != 0 || data > file.size ||
        offset > file.size - data || size > file.size - data - offset)
      return abi::makeStatus(
          StatusCode::InvalidFile,
          "tensor %s: expected %llu bytes at a multiple of %llu inside the "
          "file, found offset %llu of the data at byte %llu of %zu",
          abi::quoteForMessage(tensor.name).c_str(), (unsigned long long)size,
          (unsigned long long)alignment, (unsigned long long)offset,
          (unsigned long long)data, file.size);
    tensor.offset = data + offset;
    tensor.bytes.data = file.data + tensor.offset;
  }
  return result;
}

abi::Expected<Json> GGUFFile::readMetadata() const {
  Cursor cursor(file, metadataOffset);
  MetadataReader reader(cursor);
  Json result = Json::object();
  for (uint64_t i = 0; i < entries; ++i) {
    GPTQ_ASSIGN(auto entry, readKey(cursor));
    if (Status status = reader.read(entry.second, &result[entry.first.str()]);
        !status.ok())
      return atKey(status, entry.first);
  }
  return result;
}

//===----------------------------------------------------------------------===//
// Names
//===----------------------------------------------------------------------===//

std::string mlir::gptq::importedName(const GGUFTensor &tensor) {
  static constexpr std::pair<StringRef, StringRef> outside[] = {
      {"token_embd", "model.embed_tokens"},
      {"output_norm", "model.norm"},
      {"output", "lm_head"},
  };
  static constexpr std::pair<StringRef, StringRef> inLayer[] = {
      {"attn_norm", "input_layernorm"},
      {"attn_q", "self_attn.q_proj"},
      {"attn_k", "self_attn.k_proj"},
      {"attn_v", "self_attn.v_proj"},
      {"attn_output", "self_attn.o_proj"},
      {"attn_q_norm", "self_attn.q_norm"},
      {"attn_k_norm", "self_attn.k_norm"},
      {"ffn_norm", "post_attention_layernorm"},
      {"ffn_gate", "mlp.gate_proj"},
      {"ffn_up", "mlp.up_proj"},
      {"ffn_down", "mlp.down_proj"},
  };
  if (tensor.name == "rope_freqs.weight")
    return "model.rotary.divisors";
  auto [module, part] = StringRef(tensor.name).rsplit('.');
  std::string prefix;
  llvm::ArrayRef<std::pair<StringRef, StringRef>> names = outside;
  if (module.consume_front("blk.")) {
    auto [index, rest] = module.split('.');
    unsigned layer;
    // Not "00": one layer has one name.
    if (index.getAsInteger(10, layer) || std::to_string(layer) != index)
      return tensor.name;
    prefix = "model.layers." + index.str() + ".";
    module = rest;
    names = inLayer;
  }
  for (auto [from, to] : names) {
    if (module != from || (part != "weight" && part != "bias"))
      continue;
    const bool isMatrix = part == "weight" && tensor.shape.size() == 2;
    return prefix + to.str() + "." +
           (isMatrix ? tensor.type->name.str() : part.str());
  }
  return tensor.name;
}
