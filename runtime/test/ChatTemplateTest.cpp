//===- ChatTemplateTest.cpp - Rendering chat templates --------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/ChatTemplate.h"

#include "runtime/abi/Json.h"
#include "runtime/test/ToyModel.h"

#include <gtest/gtest.h>

using namespace gptq::abi;
using namespace gptq::runtime;

static std::string render(const std::string &source,
                          const std::vector<ChatMessage> &messages = {}) {
  Expected<ChatTemplate> t = ChatTemplate::parse(source);
  if (!t)
    return "error: " + t.status().message();
  Expected<std::string> text = t->render(messages, true, "<s>", "</s>");
  return text ? *text : "error: " + text.status().message();
}

// The golden file holds what the language's reference implementation makes of
// the templates, with the settings chat templates are rendered with.
TEST(ChatTemplate, AgreesWithTheReference) {
  Json golden = *parseJson(
      gptq::test::readFile(std::string(GPTQ_TEST_DATA) + "/chat-golden.json"));
  size_t checked = 0;
  for (auto &[name, entry] : golden["templates"].items()) {
    Expected<ChatTemplate> t =
        ChatTemplate::parse(entry["source"].get<std::string>());
    ASSERT_TRUE(t) << name << ": " << t.status().message();
    for (size_t i = 0; i < golden["cases"].size(); ++i, ++checked) {
      std::vector<ChatMessage> messages;
      for (const Json &m : golden["cases"][i]["messages"])
        messages.push_back({m["role"], m["content"]});
      Expected<std::string> text =
          t->render(messages, golden["cases"][i]["agp"], "<s>", "</s>");
      const Json &expected = entry["expected"][i];
      if (expected.is_string()) {
        EXPECT_TRUE(text) << name << ": " << text.status().message();
        EXPECT_EQ(text ? *text : "", expected) << name << ", case " << i;
      } else {
        ASSERT_FALSE(text) << name << ", case " << i;
        EXPECT_NE(text.status().message().find(expected["error"]),
                  std::string::npos)
            << text.status().message();
      }
    }
  }
  EXPECT_EQ(checked, 6u * 9u);
}

TEST(ChatTemplate, NamesWhatItDoesNotSupport) {
  EXPECT_EQ(render("a\n{% macro f() %}{% endmacro %}"),
            "error: chat template, line 2: the statement 'macro' is not "
            "supported");
  EXPECT_EQ(render("{{ 'a' | wordwrap }}"),
            "error: chat template, line 1: the filter 'wordwrap' with these "
            "arguments is not supported");
  EXPECT_EQ(render("{{ f(1) }}"), "error: chat template, line 1: the function "
                                  "'f' with these arguments is not supported");
  EXPECT_EQ(render("{{ 'a'.title() }}"),
            "error: chat template, line 1: the method 'title' of a string with "
            "these arguments is not supported");
  EXPECT_EQ(render("{{ 1 is prime }}"),
            "error: chat template, line 1: the test 'prime' is not supported");
  EXPECT_EQ(render("{{ x.y }}"), "error: chat template, line 1: the attribute "
                                 "'y' of an undefined value");
}

TEST(ChatTemplate, RefusesBadSyntax) {
  for (const char *source :
       {"{{", "{{ }}", "{% if %}", "{% if 1 %}", "{% endif %}", "{{ 'a }}",
        "{{ 1 + }}", "{{ (1 }}", "{% for x %}", "{% for x in y %}", "{{ a b }}",
        "{% break %}", "{% set x %}", "{{ 1[ }}", "{{ a | }}", "{{ $ }}",
        "{{ '\\x41' }}", "{% else %}"})
    EXPECT_EQ(render(source).substr(0, 6), "error:") << source;
}

TEST(ChatTemplate, BoundsItsWork) {
  EXPECT_NE(render("{% for i in range(100000) %}{% for j in range(100000) %}"
                   "{% endfor %}{% endfor %}")
                .find("takes too long"),
            std::string::npos);
  EXPECT_NE(render("{% set ns = namespace(x='ab') %}{% for i in range(60) %}"
                   "{% set ns.x = ns.x ~ ns.x %}{% endfor %}")
                .find("takes too long"),
            std::string::npos);
  EXPECT_NE(render("{% set ns = namespace(x=[]) %}{% for i in range(100000) %}"
                   "{% set ns.x = [ns.x] %}{% endfor %}")
                .find("nested too deeply"),
            std::string::npos);
  EXPECT_NE(render("{% set ns = namespace() %}{% set ns.x = ns %}")
                .find("namespace inside"),
            std::string::npos);
  EXPECT_NE(
      render("{{ " + std::string(100000, '(') + "}}").find("nested too deeply"),
      std::string::npos);
  std::string sum = "{{ 1";
  for (int i = 0; i < 100000; ++i)
    sum += "+1";
  EXPECT_NE(render(sum + " }}").find("nested too deeply"), std::string::npos);
  std::string ifs;
  for (int i = 0; i < 100000; ++i)
    ifs += "{% if 1 %}";
  EXPECT_NE(render(ifs).find("nested too deeply"), std::string::npos);
  EXPECT_NE(render("{{ 9223372036854 * 9223372036854 }}").find("too large"),
            std::string::npos);
  EXPECT_NE(render("{{ 1 // 0 }}").find("division by 0"), std::string::npos);
}
