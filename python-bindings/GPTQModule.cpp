//===- GPTQModule.cpp - The package's extension module --------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A thin layer over the C API: handles become objects, statuses exceptions,
// arrays NumPy's. What needs no C++ is in gptq/__init__.py.
//
//===----------------------------------------------------------------------===//

#include "gptq/runtime.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

namespace nb = nanobind;

/// A failure becomes the exception Python has for it.
static void raise(gptq_status status, const gptq_error &error) {
  switch (status) {
  case GPTQ_OK:
    return;
  case GPTQ_INVALID_ARGUMENT:
  case GPTQ_OUT_OF_RANGE:
    throw nb::value_error(error.message);
  case GPTQ_NOT_FOUND:
    PyErr_SetString(PyExc_FileNotFoundError, error.message);
    throw nb::python_error();
  case GPTQ_RESOURCE_EXHAUSTED:
    PyErr_SetString(PyExc_MemoryError, error.message);
    throw nb::python_error();
  default:
    throw std::runtime_error(error.message);
  }
}

/// Calls the C API.
template <typename F> static void check(F call) {
  gptq_error error;
  raise(call(&error), error);
}

/// Calls the C API while other threads of Python run.
template <typename F> static void checkReleased(F call) {
  gptq_error error;
  gptq_status status;
  {
    nb::gil_scoped_release release;
    status = call(&error);
  }
  raise(status, error);
}

namespace {

template <typename T>
using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;

/// An array of NumPy that owns `data`.
template <typename T>
nb::ndarray<nb::numpy, T> owned(std::unique_ptr<T[]> data,
                                const std::vector<size_t> &shape) {
  T *pointer = data.release();
  nb::capsule owner(pointer,
                    [](void *p) noexcept { delete[] static_cast<T *>(p); });
  return nb::ndarray<nb::numpy, T>(pointer, shape.size(), shape.data(), owner);
}

class Model {
public:
  Model(const std::string &path, int threads, int device, bool verify) {
    gptq_model_options options = gptq_model_default_options();
    options.threads = threads;
    options.device = device;
    options.verify = verify;
    checkReleased([&](gptq_error *e) {
      return gptq_model_open(path.c_str(), &options, &handle, e);
    });
  }
  ~Model() { gptq_model_close(handle); }
  Model(const Model &) = delete;

  gptq_model_info info() const {
    gptq_model_info info;
    gptq_model_get_info(handle, &info);
    return info;
  }

  std::string manifest() const { return gptq_model_manifest(handle); }

  std::vector<int32_t> eosIds() const {
    size_t count = 0;
    const int32_t *ids = gptq_model_eos_ids(handle, &count);
    return {ids, ids + count};
  }

  std::vector<int32_t> encode(std::string_view text, bool addBos,
                              bool parseSpecial) const {
    std::vector<int32_t> tokens;
    size_t count = 0;
    do {
      tokens.resize(count);
      check([&](gptq_error *e) {
        return gptq_encode(handle, text.data(), text.size(), addBos,
                           parseSpecial, tokens.data(), tokens.size(), &count,
                           e);
      });
    } while (count > tokens.size());
    return tokens;
  }

  std::string chat(const std::vector<std::vector<std::string>> &messages,
                   bool addGenerationPrompt) const {
    std::vector<gptq_chat_message> list;
    for (const std::vector<std::string> &m : messages)
      list.push_back({m.at(0).c_str(), m.at(1).c_str()});
    std::string text;
    size_t bytes = 0;
    do {
      text.resize(bytes);
      check([&](gptq_error *e) {
        return gptq_apply_chat_template(handle, list.data(), list.size(),
                                        addGenerationPrompt, text.data(),
                                        text.size(), &bytes, e);
      });
    } while (bytes > text.size());
    return text;
  }

  /// The ports of an entry as (name, dtype, shape) with -1 for its rows.
  nb::list ports(const std::string &entry, bool isOutput) const {
    nb::list out;
    for (size_t i = 0; i < entryInfo(entry, isOutput); ++i) {
      gptq_port_info port = portInfo(entry, isOutput, i);
      nb::list shape;
      for (size_t d = 0; d < port.rank; ++d)
        shape.append(port.shape[d]);
      out.append(nb::make_tuple(
          port.name, port.dtype == GPTQ_I32 ? "int32" : "float32", shape));
    }
    return out;
  }

  size_t entryInfo(const std::string &name, bool isOutput) const {
    for (size_t i = 0; i < info().entry_count; ++i) {
      gptq_entry_info entry;
      check([&](gptq_error *e) {
        return gptq_model_get_entry(handle, i, &entry, e);
      });
      if (name == entry.name)
        return isOutput ? entry.output_count : entry.input_count;
    }
    throw nb::value_error(("the model has no entry '" + name + "'").c_str());
  }

  gptq_port_info portInfo(const std::string &entry, bool isOutput,
                          size_t index) const {
    gptq_port_info port;
    check([&](gptq_error *e) {
      return gptq_model_get_port(handle, entry.c_str(), isOutput, index, &port,
                                 e);
    });
    return port;
  }

  gptq_model *handle = nullptr;
};

class Session {
public:
  explicit Session(Model &model) : model(model) {
    check([&](gptq_error *e) {
      return gptq_session_create(model.handle, &handle, e);
    });
  }
  ~Session() { gptq_session_destroy(handle); }
  Session(const Session &) = delete;

  int64_t position() const { return gptq_session_position(handle); }

  void rewind(int64_t position) {
    check([&](gptq_error *e) {
      return gptq_session_rewind(handle, position, e);
    });
  }

  nb::ndarray<nb::numpy, float> eval(const std::vector<int32_t> &tokens) {
    checkReleased([&](gptq_error *e) {
      return gptq_session_eval(handle, tokens.data(), int64_t(tokens.size()),
                               e);
    });
    size_t vocab = size_t(model.info().vocab_size);
    auto copy = std::make_unique<float[]>(vocab);
    std::copy_n(gptq_session_logits(handle), vocab, copy.get());
    return owned(std::move(copy), {vocab});
  }

  nb::ndarray<nb::numpy, float> score(const std::vector<int32_t> &tokens) {
    size_t vocab = size_t(model.info().vocab_size);
    auto logits = std::make_unique<float[]>(tokens.size() * vocab);
    checkReleased([&](gptq_error *e) {
      return gptq_session_score(handle, tokens.data(), int64_t(tokens.size()),
                                logits.get(), e);
    });
    return owned(std::move(logits), {tokens.size(), vocab});
  }

  /// Runs a lone function on arrays that already have its element types.
  nb::list run(const std::string &entry, nb::list arrays) {
    std::vector<gptq_tensor> inputs, outputs;
    // Keeps the arrays' memory until the call is done.
    std::vector<nb::ndarray<nb::c_contig, nb::device::cpu>> held;
    int64_t rows = 1;
    for (size_t i = 0; i < arrays.size(); ++i) {
      held.push_back(
          nb::cast<nb::ndarray<nb::c_contig, nb::device::cpu>>(arrays[i]));
      const auto &array = held.back();
      gptq_tensor t{};
      if (array.ndim() > GPTQ_MAX_RANK)
        throw nb::value_error("an array has too many dimensions");
      if (array.dtype() == nb::dtype<float>())
        t.dtype = GPTQ_F32;
      else if (array.dtype() == nb::dtype<int32_t>())
        t.dtype = GPTQ_I32;
      else
        throw nb::type_error("expected an array of float32 or int32");
      t.rank = array.ndim();
      for (size_t d = 0; d < array.ndim(); ++d)
        t.shape[d] = int64_t(array.shape(d));
      t.data = const_cast<void *>(array.data());
      inputs.push_back(t);
      if (i < model.entryInfo(entry, false)) {
        gptq_port_info port = model.portInfo(entry, false, i);
        for (size_t d = 0; d < port.rank && d < t.rank; ++d)
          if (port.shape[d] < 0)
            rows = t.shape[d];
      }
    }
    std::vector<std::unique_ptr<float[]>> memory;
    size_t count = model.entryInfo(entry, true);
    for (size_t i = 0; i < count; ++i) {
      gptq_port_info port = model.portInfo(entry, true, i);
      gptq_tensor t{};
      t.dtype = port.dtype;
      t.rank = port.rank;
      size_t elements = 1;
      for (size_t d = 0; d < port.rank; ++d) {
        t.shape[d] = port.shape[d] < 0 ? rows : port.shape[d];
        elements *= size_t(t.shape[d]);
      }
      // Both element types are four bytes wide.
      memory.push_back(std::make_unique<float[]>(elements));
      t.data = memory.back().get();
      outputs.push_back(t);
    }
    checkReleased([&](gptq_error *e) {
      return gptq_session_run(handle, entry.c_str(), inputs.data(),
                              inputs.size(), outputs.data(), outputs.size(), e);
    });
    nb::list results;
    for (size_t i = 0; i < count; ++i) {
      std::vector<size_t> shape(outputs[i].shape,
                                outputs[i].shape + outputs[i].rank);
      nb::object array = nb::cast(owned(std::move(memory[i]), shape));
      if (outputs[i].dtype == GPTQ_I32)
        array = array.attr("view")("int32");
      results.append(array);
    }
    return results;
  }

  /// Appends a token and returns what `sampler` picks next, on the device.
  int32_t sample(const gptq_sampler *sampler, int32_t token) {
    checkReleased([&](gptq_error *e) {
      return gptq_session_sample(handle, sampler, token, &token, e);
    });
    return token;
  }

private:
  Model &model;
  gptq_session *handle = nullptr;
};

class Decoder {
public:
  explicit Decoder(Model &model) {
    check([&](gptq_error *e) {
      return gptq_decoder_create(model.handle, &handle, e);
    });
  }
  ~Decoder() { gptq_decoder_destroy(handle); }
  Decoder(const Decoder &) = delete;

  std::string push(int32_t token) {
    const char *text = nullptr;
    size_t bytes = 0;
    check([&](gptq_error *e) {
      return gptq_decoder_push(handle, token, &text, &bytes, e);
    });
    return {text, bytes};
  }
  std::string finish() {
    const char *text = nullptr;
    size_t bytes = 0;
    check([&](gptq_error *e) {
      return gptq_decoder_finish(handle, &text, &bytes, e);
    });
    return {text, bytes};
  }

private:
  gptq_decoder *handle = nullptr;
};

class Sampler {
public:
  Sampler(float temperature, int topK, float topP, uint64_t seed) {
    gptq_sampling sampling{temperature, topK, topP, seed};
    check([&](gptq_error *e) {
      return gptq_sampler_create(&sampling, &handle, e);
    });
  }
  ~Sampler() { gptq_sampler_destroy(handle); }
  Sampler(const Sampler &) = delete;

  int32_t pick(Array<float> logits, int64_t position) {
    if (logits.size() == 0)
      throw nb::value_error("expected at least 1 logit, found none");
    return gptq_sampler_pick(handle, logits.data(), int64_t(logits.size()),
                             position);
  }
  /// Whether the model's device picks by itself.
  bool isOnDevice(const Model &model) const {
    return gptq_model_chooses(model.handle, handle);
  }
  /// Appends a token where it does, and returns the next.
  int32_t sample(Session &session, int32_t token) {
    return session.sample(handle, token);
  }

private:
  gptq_sampler *handle = nullptr;
};

} // namespace

NB_MODULE(_gptq, m) {
  m.def("version", &gptq_version);
  nb::class_<Model>(m, "Model")
      .def(nb::init<const std::string &, int, int, bool>(), nb::arg("path"),
           nb::arg("threads"), nb::arg("device"), nb::arg("verify"))
      .def_prop_ro("manifest", &Model::manifest)
      .def_prop_ro("eos_ids", &Model::eosIds)
      .def_prop_ro("threads", [](const Model &m) { return m.info().threads; })
      .def("encode", &Model::encode)
      .def("chat", &Model::chat)
      .def("ports", &Model::ports);
  // What refers to a model keeps it alive.
  nb::class_<Session>(m, "Session")
      .def(nb::init<Model &>(), nb::keep_alive<1, 2>())
      .def_prop_ro("position", &Session::position)
      .def("rewind", &Session::rewind)
      .def("eval", &Session::eval)
      .def("score", &Session::score)
      .def("run", &Session::run);
  nb::class_<Decoder>(m, "Decoder")
      .def(nb::init<Model &>(), nb::keep_alive<1, 2>())
      .def("push", &Decoder::push)
      .def("finish", &Decoder::finish);
  nb::class_<Sampler>(m, "Sampler")
      .def(nb::init<float, int, float, uint64_t>())
      .def("pick", &Sampler::pick)
      .def("is_on_device", &Sampler::isOnDevice)
      .def("sample", &Sampler::sample);
}
