//===- Status.h - Errors as values ------------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Functions that can fail return `Status`, or `Expected<T>` where they also
// return a value. A message is one sentence without a final full stop that
// names what was read, what was expected and what was found.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_ABI_STATUS_H
#define GPTQ_RUNTIME_ABI_STATUS_H

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace gptq::abi {

/// Values match `gptq_status` of the C API.
enum class StatusCode : int {
  Ok = 0,
  /// The caller passed something the function does not take.
  InvalidArgument = 1,
  /// A file or a name does not exist, or cannot be opened.
  NotFound = 2,
  /// A file's content breaks its format.
  InvalidFile = 3,
  /// Well formed, but not something this build or this machine can do.
  Unsupported = 4,
  /// The machine ran out of memory, descriptors or threads.
  ResourceExhausted = 5,
  /// The call does not fit the session's state, e.g. its context is full.
  OutOfRange = 6,
  /// A GPU or its driver reported an error.
  DeviceFailed = 7,
};

class [[nodiscard]] Status {
public:
  Status() = default;
  Status(StatusCode code, std::string message)
      : statusCode(code), text(std::move(message)) {}

  static Status success() { return {}; }
  bool ok() const { return statusCode == StatusCode::Ok; }
  StatusCode code() const { return statusCode; }
  const std::string &message() const { return text; }

  /// The same error with `context: ` in front of its message.
  Status withContext(std::string_view context) const {
    if (ok())
      return *this;
    return {statusCode, std::string(context) + ": " + text};
  }

private:
  StatusCode statusCode = StatusCode::Ok;
  std::string text;
};

/// A Status whose message is formatted as printf does.
Status makeStatus(StatusCode code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/// A value, or the reason there is none.
template <typename T> class [[nodiscard]] Expected {
public:
  Expected(T v) : held(std::move(v)) {}
  Expected(Status s) : error(std::move(s)) {
    assert(!error.ok() && "a success needs a value");
  }

  explicit operator bool() const { return held.has_value(); }
  bool ok() const { return held.has_value(); }
  const Status &status() const { return error; }
  T &operator*() { return *held; }
  const T &operator*() const { return *held; }
  T *operator->() { return &*held; }
  const T *operator->() const { return &*held; }
  T take() { return std::move(*held); }

private:
  std::optional<T> held;
  Status error;
};

/// Bytes somebody else owns.
struct ByteSpan {
  const uint8_t *data = nullptr;
  size_t size = 0;

  std::string_view text() const {
    return {reinterpret_cast<const char *>(data), size};
  }
  static ByteSpan of(std::string_view s) {
    return {reinterpret_cast<const uint8_t *>(s.data()), s.size()};
  }
};

} // namespace gptq::abi

/// Returns the error of an expression of type Status from this function.
#define GPTQ_TRY(expr)                                                         \
  do {                                                                         \
    if (::gptq::abi::Status gptqStatus = (expr); !gptqStatus.ok())             \
      return gptqStatus;                                                       \
  } while (false)

/// Declares `decl` from an expression of type Expected, or returns its error.
#define GPTQ_ASSIGN_CAT2(a, b) a##b
#define GPTQ_ASSIGN_CAT(a, b) GPTQ_ASSIGN_CAT2(a, b)
#define GPTQ_ASSIGN(decl, expr)                                                \
  auto GPTQ_ASSIGN_CAT(gptqExpected, __LINE__) = (expr);                       \
  if (!GPTQ_ASSIGN_CAT(gptqExpected, __LINE__))                                \
    return GPTQ_ASSIGN_CAT(gptqExpected, __LINE__).status();                   \
  decl = GPTQ_ASSIGN_CAT(gptqExpected, __LINE__).take()

#endif // GPTQ_RUNTIME_ABI_STATUS_H
