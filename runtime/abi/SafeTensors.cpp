//===- SafeTensors.cpp - A checked safetensors reader ---------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/SafeTensors.h"

#include "runtime/abi/Json.h"

#include <algorithm>

using namespace gptq::abi;

namespace {
struct DTypeRow {
  DType dtype;
  const char *name;
  size_t width;
};
} // namespace

static constexpr DTypeRow dtypeTable[] = {
    {DType::Bool, "BOOL", 1},      {DType::U8, "U8", 1},
    {DType::I8, "I8", 1},          {DType::F8E5M2, "F8_E5M2", 1},
    {DType::F8E4M3, "F8_E4M3", 1}, {DType::U16, "U16", 2},
    {DType::I16, "I16", 2},        {DType::F16, "F16", 2},
    {DType::BF16, "BF16", 2},      {DType::U32, "U32", 4},
    {DType::I32, "I32", 4},        {DType::F32, "F32", 4},
    {DType::U64, "U64", 8},        {DType::I64, "I64", 8},
    {DType::F64, "F64", 8},
};

size_t gptq::abi::byteWidth(DType dtype) {
  return dtypeTable[size_t(dtype)].width;
}

const char *gptq::abi::dtypeName(DType dtype) {
  return dtypeTable[size_t(dtype)].name;
}

std::optional<DType> gptq::abi::parseDType(std::string_view name) {
  for (const DTypeRow &row : dtypeTable)
    if (name == row.name)
      return row.dtype;
  return std::nullopt;
}

/// Reads one tensor's description and checks it against the data section.
static Expected<TensorInfo>
readTensor(const std::string &name, const JsonView &value, uint64_t dataBytes) {
  TensorInfo info;
  info.name = name;
  GPTQ_ASSIGN(JsonView dtypeView, value.at("dtype"));
  GPTQ_ASSIGN(std::string dtypeText, dtypeView.string());
  std::optional<DType> dtype = parseDType(dtypeText);
  if (!dtype)
    return makeStatus(StatusCode::Unsupported, "%s: dtype %s is not known",
                      value.path().c_str(), quoteForMessage(dtypeText).c_str());
  info.dtype = *dtype;

  GPTQ_ASSIGN(JsonView shapeView, value.at("shape"));
  GPTQ_ASSIGN(std::vector<JsonView> dims, shapeView.elements());
  uint64_t bytes = byteWidth(info.dtype);
  for (const JsonView &dim : dims) {
    GPTQ_ASSIGN(int64_t n, dim.integer());
    info.shape.push_back(n);
    if (__builtin_mul_overflow(bytes, uint64_t(n), &bytes))
      return makeStatus(StatusCode::InvalidFile,
                        "%s: the shape's size overflows 64 bits",
                        value.path().c_str());
  }

  GPTQ_ASSIGN(JsonView offsetsView, value.at("data_offsets"));
  GPTQ_ASSIGN(std::vector<JsonView> offsets, offsetsView.elements());
  if (offsets.size() != 2)
    return makeStatus(StatusCode::InvalidFile,
                      "%s: expected 2 data_offsets, found %zu",
                      value.path().c_str(), offsets.size());
  GPTQ_ASSIGN(int64_t begin, offsets[0].integer());
  GPTQ_ASSIGN(int64_t end, offsets[1].integer());
  if (begin > end || uint64_t(end) > dataBytes)
    return makeStatus(StatusCode::InvalidFile,
                      "%s: data_offsets [%lld, %lld] are not a range inside "
                      "the data section of %llu bytes",
                      value.path().c_str(), (long long)begin, (long long)end,
                      (unsigned long long)dataBytes);
  if (uint64_t(end - begin) != bytes)
    return makeStatus(StatusCode::InvalidFile,
                      "%s: shape and dtype need %llu bytes, data_offsets "
                      "give %lld",
                      value.path().c_str(), (unsigned long long)bytes,
                      (long long)(end - begin));
  info.begin = begin;
  info.end = end;
  return info;
}

Expected<SafeTensors> SafeTensors::open(ByteSpan file) {
  if (file.size < 8)
    return makeStatus(StatusCode::InvalidFile,
                      "safetensors file has %zu bytes, its header's length "
                      "alone needs 8",
                      file.size);
  uint64_t headerBytes = 0;
  for (int i = 7; i >= 0; --i)
    headerBytes = headerBytes << 8 | file.data[i];
  if (headerBytes > maxHeaderBytes)
    return makeStatus(StatusCode::InvalidFile,
                      "safetensors header of %llu bytes is longer than the "
                      "format's limit of %llu",
                      (unsigned long long)headerBytes,
                      (unsigned long long)maxHeaderBytes);
  if (headerBytes > file.size - 8)
    return makeStatus(StatusCode::InvalidFile,
                      "safetensors header needs %llu bytes, the file has %zu "
                      "after its length",
                      (unsigned long long)headerBytes, file.size - 8);

  SafeTensors result;
  result.offset = 8 + headerBytes;
  result.data = {file.data + result.offset, size_t(file.size - result.offset)};
  ByteSpan header{file.data + 8, size_t(headerBytes)};
  if (header.size == 0 || header.data[0] != '{')
    return makeStatus(StatusCode::InvalidFile,
                      "safetensors header does not start with '{'");

  // A tensor's description is three levels deep.
  Expected<Json> document = parseJson(header.text(), {4, size_t(1) << 23});
  if (!document)
    return document.status().withContext("safetensors header");

  for (auto it = document->begin(); it != document->end(); ++it) {
    JsonView value(*it, "tensor " + quoteForMessage(it.key()));
    GPTQ_TRY(value.expectObject());
    if (it.key() == "__metadata__") {
      for (auto m = it->begin(); m != it->end(); ++m) {
        GPTQ_ASSIGN(
            std::string text,
            JsonView(*m, "__metadata__." + quoteForMessage(m.key())).string());
        result.meta.emplace(m.key(), std::move(text));
      }
      continue;
    }
    GPTQ_ASSIGN(TensorInfo info, readTensor(it.key(), value, result.data.size));
    result.list.push_back(std::move(info));
  }

  // In the order of their bytes, each tensor must start where the one before
  // it ends: that excludes overlaps and holes at once.
  std::sort(result.list.begin(), result.list.end(),
            [](const TensorInfo &a, const TensorInfo &b) {
              return std::tie(a.begin, a.end, a.name) <
                     std::tie(b.begin, b.end, b.name);
            });
  uint64_t end = 0;
  for (const TensorInfo &info : result.list) {
    if (info.begin != end)
      return makeStatus(
          StatusCode::InvalidFile,
          "tensor %s: expected its bytes to start at %llu, found %llu (%s)",
          quoteForMessage(info.name).c_str(), (unsigned long long)end,
          (unsigned long long)info.begin,
          info.begin < end ? "tensors overlap" : "there is a hole");
    end = info.end;
  }
  if (end != result.data.size)
    return makeStatus(StatusCode::InvalidFile,
                      "safetensors data section has %zu bytes, its tensors "
                      "cover %llu",
                      result.data.size, (unsigned long long)end);
  for (size_t i = 0; i < result.list.size(); ++i)
    result.byName.emplace(result.list[i].name, i);
  return result;
}

const TensorInfo *SafeTensors::find(std::string_view name) const {
  auto it = byName.find(std::string(name));
  return it == byName.end() ? nullptr : &list[it->second];
}

std::string gptq::abi::writeSafeTensorsHeader(
    const std::vector<TensorInfo> &tensors,
    const std::map<std::string, std::string> &metadata, uint64_t alignment) {
  nlohmann::ordered_json document = nlohmann::ordered_json::object();
  if (!metadata.empty())
    document["__metadata__"] = metadata;
  for (const TensorInfo &t : tensors)
    document[t.name] = {{"dtype", dtypeName(t.dtype)},
                        {"shape", t.shape},
                        {"data_offsets", {t.begin, t.end}}};
  std::string text = document.dump();
  text.append((alignment - (8 + text.size()) % alignment) % alignment, ' ');
  std::string out(8, '\0');
  for (int i = 0; i < 8; ++i)
    out[i] = char(uint64_t(text.size()) >> (8 * i));
  return out + text;
}
