//===- Device.cpp - Where a model's programs run --------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "runtime/lib/Device.h"

#include <algorithm>

using namespace gptq::abi;
using namespace gptq::runtime;

CallLayout CallLayout::of(const ManifestEntry &entry, int64_t rows,
                          int64_t alignment) {
  CallLayout layout;
  auto place = [&](const std::vector<ManifestPort> &ports,
                   std::vector<int64_t> &offsets, int64_t &bytes) {
    for (const ManifestPort &port : ports) {
      offsets.push_back(bytes);
      bytes += alignedTo(port.elements(rows) * port.elementBytes(), alignment);
    }
  };
  place(entry.inputs, layout.inputOffsets, layout.inputBytes);
  place(entry.outputs, layout.outputOffsets, layout.outputBytes);
  return layout;
}

CallBuffers CallLayout::at(uint8_t *inputs, uint8_t *outputs) const {
  CallBuffers buffers;
  for (int64_t offset : inputOffsets)
    buffers.inputs.push_back(inputs + offset);
  for (int64_t offset : outputOffsets)
    buffers.outputs.push_back(outputs + offset);
  return buffers;
}

Expected<int32_t> DeviceSession::next(const ManifestEntry &, int32_t,
                                      const SamplingWords *, int64_t, bool) {
  return Status(StatusCode::Unsupported,
                "this device does not choose tokens by itself");
}

int64_t gptq::runtime::arenaBytesOf(const Manifest &manifest) {
  int64_t bytes = 0;
  for (const ManifestEntry &entry : manifest.entries)
    bytes = std::max(bytes, entry.arenaBytes);
  return bytes;
}

int64_t gptq::runtime::scratchBytesOf(const Manifest &manifest) {
  int64_t bytes = 0;
  for (const ManifestEntry &entry : manifest.entries)
    for (const ManifestDispatch &dispatch : entry.dispatches)
      for (const ManifestVariant &variant : dispatch.variants)
        bytes = std::max(bytes, variant.scratchBytes);
  return bytes;
}

const ManifestVariant &
gptq::runtime::variantFor(const ManifestDispatch &dispatch, int64_t rows) {
  return *std::find_if(
      dispatch.variants.begin(), dispatch.variants.end(),
      [&](const ManifestVariant &variant) { return variant.mMax >= rows; });
}
