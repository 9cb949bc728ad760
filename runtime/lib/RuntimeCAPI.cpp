//===- RuntimeCAPI.cpp - The C API ----------------------------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/runtime.h"

#include "runtime/abi/Json.h"
#include "runtime/lib/Model.h"
#include "runtime/lib/Sampler.h"
#include "runtime/lib/Session.h"

#include <cstdio>
#include <cstring>
#include <new>
#include <stdexcept>
#include <unistd.h>

using namespace gptq::abi;
using namespace gptq::runtime;

struct gptq_model {
  std::unique_ptr<Model> impl;
  /// What does not change of it.
  DeviceInfo device;
};

struct gptq_session {
  std::unique_ptr<Session> impl;
};

struct gptq_decoder {
  StreamDecoder impl;
  std::string text;
};

struct gptq_sampler {
  Sampler impl;
};

static gptq_status report(const Status &status, gptq_error *error) {
  if (!status.ok() && error)
    std::snprintf(error->message, sizeof(error->message), "%s",
                  status.message().c_str());
  return gptq_status(status.code());
}

/// Runs `body`, which returns a Status, and keeps its exceptions inside:
/// running out of memory is the only one this library leads to.
template <typename F> static gptq_status guarded(gptq_error *error, F body) {
  try {
    return report(body(), error);
  } catch (const std::bad_alloc &) {
    return report(Status(StatusCode::ResourceExhausted, "out of memory"),
                  error);
  } catch (const std::exception &e) {
    return report(Status(StatusCode::ResourceExhausted, e.what()), error);
  }
}

static Status nullArgument(const char *name) {
  return makeStatus(StatusCode::InvalidArgument,
                    "the argument '%s' must not be null", name);
}

#define REQUIRE(argument)                                                      \
  if (!(argument))                                                             \
  return nullArgument(#argument)

const char *gptq_version(void) { return GPTQ_VERSION; }

//===----------------------------------------------------------------------===//
// Models
//===----------------------------------------------------------------------===//

gptq_model_options gptq_model_default_options(void) {
  return {/*threads=*/0, /*device=*/0, /*verify=*/true, /*inspect_only=*/false};
}

gptq_status gptq_model_open(const char *path, const gptq_model_options *options,
                            gptq_model **model, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(path);
    REQUIRE(model);
    gptq_model_options o = options ? *options : gptq_model_default_options();
    GPTQ_ASSIGN(
        std::unique_ptr<Model> impl,
        Model::open(path, {o.threads, o.device, o.verify, o.inspect_only}));
    DeviceInfo device;
    if (impl->canRun()) {
      GPTQ_ASSIGN(device, impl->device().info());
    }
    *model = new gptq_model{std::move(impl), std::move(device)};
    return {};
  });
}

void gptq_model_close(gptq_model *model) { delete model; }

void gptq_model_get_info(const gptq_model *model, gptq_model_info *info) {
  const Model &m = *model->impl;
  const Manifest &manifest = m.manifest();
  *info = gptq_model_info{};
  info->producer = manifest.producer.c_str();
  info->target = manifest.target.name.c_str();
  info->name = info->family = info->quantization = "";
  if (manifest.model) {
    info->is_language_model = true;
    info->name = manifest.model->name.c_str();
    info->family = manifest.model->family.c_str();
    info->quantization = manifest.model->quantization.c_str();
    info->vocab_size = manifest.model->vocabSize;
    info->max_context = manifest.model->maxContext;
    info->parameters = manifest.model->parameters;
    info->add_bos = manifest.model->addBos;
  }
  info->has_tokenizer = manifest.tokenizer.kind != "none";
  info->has_chat_template = !manifest.chatTemplate.empty();
  info->has_score = manifest.findEntry("score") != nullptr;
  info->has_next = manifest.findEntry("next") != nullptr;
  if (const ManifestEntry *sample = manifest.findEntry("sample"))
    info->max_top_k = sample->maxTopK;
  info->threads = model->device.threads;
  info->file_bytes = m.fileBytes();
  for (ByteSpan weight : m.artifact().weights)
    info->weight_bytes += int64_t(weight.size);
  for (const auto &[name, code] : m.artifact().codes)
    info->code_bytes += int64_t(code.size);
  for (const ManifestState &state : manifest.state)
    info->state_bytes += state.bytes;
  info->arena_bytes = arenaBytesOf(manifest);
  info->scratch_bytes = scratchBytesOf(manifest);
  info->entry_count = manifest.entries.size();
}

gptq_status gptq_model_get_device(const gptq_model *model,
                                  gptq_device_info *info, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(model);
    REQUIRE(info);
    if (!model->impl->canRun())
      return Status(StatusCode::InvalidArgument,
                    "the model was opened for inspection only");
    GPTQ_ASSIGN(DeviceInfo now, model->impl->device().info());
    *info = {model->device.name.c_str(), model->device.code.c_str(),
             now.modelBytes, now.freeBytes, now.totalBytes};
    return {};
  });
}

const char *gptq_model_manifest(const gptq_model *model) {
  return model->impl->artifact().manifestText.c_str();
}

const int32_t *gptq_model_bos_ids(const gptq_model *model, size_t *count) {
  *count = model->impl->bosIds().size();
  return model->impl->bosIds().data();
}

const int32_t *gptq_model_eos_ids(const gptq_model *model, size_t *count) {
  *count = model->impl->eosIds().size();
  return model->impl->eosIds().data();
}

gptq_status gptq_model_get_entry(const gptq_model *model, size_t index,
                                 gptq_entry_info *info, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(model);
    REQUIRE(info);
    const auto &entries = model->impl->manifest().entries;
    if (index >= entries.size())
      return makeStatus(StatusCode::NotFound,
                        "entry %zu does not exist, there are %zu", index,
                        entries.size());
    const ManifestEntry &entry = entries[index];
    *info = {entry.name.c_str(), entry.maxM, entry.inputs.size(),
             entry.outputs.size()};
    return {};
  });
}

gptq_status gptq_model_get_port(const gptq_model *model, const char *entry,
                                bool is_output, size_t index,
                                gptq_port_info *info, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(model);
    REQUIRE(entry);
    REQUIRE(info);
    const ManifestEntry *e = model->impl->manifest().findEntry(entry);
    if (!e)
      return Status(StatusCode::NotFound,
                    "the model has no entry " + quoteForMessage(entry));
    const auto &ports = is_output ? e->outputs : e->inputs;
    if (index >= ports.size())
      return makeStatus(StatusCode::NotFound,
                        "entry %s: %s %zu does not exist, there are %zu",
                        quoteForMessage(entry).c_str(),
                        is_output ? "output" : "input", index, ports.size());
    const ManifestPort &port = ports[index];
    if (port.shape.size() > GPTQ_MAX_RANK)
      return makeStatus(StatusCode::Unsupported,
                        "%s has %zu dimensions, at most %d can be described",
                        quoteForMessage(port.name).c_str(), port.shape.size(),
                        GPTQ_MAX_RANK);
    *info = {port.name.c_str(),
             // Half precision comes and goes as f32.
             port.dtype == "i32" ? GPTQ_I32 : GPTQ_F32,
             port.shape.size(),
             {}};
    for (size_t i = 0; i < port.shape.size(); ++i)
      info->shape[i] = port.shape[i].size;
    return {};
  });
}

//===----------------------------------------------------------------------===//
// Sessions
//===----------------------------------------------------------------------===//

gptq_status gptq_session_create(gptq_model *model, gptq_session **session,
                                gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(model);
    REQUIRE(session);
    GPTQ_ASSIGN(std::unique_ptr<Session> impl, Session::create(*model->impl));
    *session = new gptq_session{std::move(impl)};
    return {};
  });
}

void gptq_session_destroy(gptq_session *session) { delete session; }

int64_t gptq_session_position(const gptq_session *session) {
  return session->impl->position();
}

gptq_status gptq_session_rewind(gptq_session *session, int64_t position,
                                gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(session);
    return session->impl->rewind(position);
  });
}

gptq_status gptq_session_eval(gptq_session *session, const int32_t *tokens,
                              int64_t count, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(session);
    REQUIRE(tokens);
    return session->impl->eval(tokens, count, nullptr);
  });
}

const float *gptq_session_logits(const gptq_session *session) {
  return session->impl->logits();
}

gptq_status gptq_session_next(gptq_session *session, int32_t token,
                              int32_t *chosen, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(session);
    REQUIRE(chosen);
    GPTQ_ASSIGN(*chosen, session->impl->next(token));
    return {};
  });
}

bool gptq_model_chooses(const gptq_model *model, const gptq_sampler *sampler) {
  return model->impl->chooses(sampler->impl);
}

gptq_status gptq_session_sample(gptq_session *session,
                                const gptq_sampler *sampler, int32_t token,
                                int32_t *chosen, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(session);
    REQUIRE(sampler);
    REQUIRE(chosen);
    GPTQ_ASSIGN(*chosen, session->impl->sample(sampler->impl, token));
    return {};
  });
}

gptq_status gptq_session_score(gptq_session *session, const int32_t *tokens,
                               int64_t count, float *logits,
                               gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(session);
    REQUIRE(tokens);
    REQUIRE(logits);
    return session->impl->eval(tokens, count, logits);
  });
}

static Expected<HostArray> hostArray(const gptq_tensor &tensor) {
  if (tensor.rank > GPTQ_MAX_RANK)
    return makeStatus(StatusCode::InvalidArgument,
                      "expected at most %d dimensions, found %zu",
                      GPTQ_MAX_RANK, tensor.rank);
  return HostArray{tensor.dtype == GPTQ_I32 ? "i32" : "f32",
                   {tensor.shape, tensor.shape + tensor.rank},
                   tensor.data};
}

gptq_status gptq_session_run(gptq_session *session, const char *entry,
                             const gptq_tensor *inputs, size_t input_count,
                             gptq_tensor *outputs, size_t output_count,
                             gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(session);
    REQUIRE(entry);
    REQUIRE(inputs || input_count == 0);
    REQUIRE(outputs || output_count == 0);
    std::vector<HostArray> in, out;
    for (size_t i = 0; i < input_count; ++i) {
      GPTQ_ASSIGN(HostArray array, hostArray(inputs[i]));
      in.push_back(std::move(array));
    }
    for (size_t i = 0; i < output_count; ++i) {
      GPTQ_ASSIGN(HostArray array, hostArray(outputs[i]));
      out.push_back(std::move(array));
    }
    return session->impl->run(entry, in, out);
  });
}

//===----------------------------------------------------------------------===//
// Text
//===----------------------------------------------------------------------===//

static Expected<const Tokenizer *> tokenizerOf(const gptq_model *model) {
  if (const Tokenizer *tokenizer = model->impl->tokenizer())
    return tokenizer;
  return Status(StatusCode::Unsupported,
                model->impl->canRun()
                    ? "the model has no tokenizer"
                    : "the model was opened for inspection only");
}

gptq_status gptq_encode(const gptq_model *model, const char *text, size_t bytes,
                        bool add_bos, bool parse_special, int32_t *tokens,
                        size_t capacity, size_t *count, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(model);
    REQUIRE(text || bytes == 0);
    REQUIRE(tokens || capacity == 0);
    REQUIRE(count);
    GPTQ_ASSIGN(const Tokenizer *tokenizer, tokenizerOf(model));
    std::vector<int32_t> out;
    const std::vector<int32_t> &bos = model->impl->bosIds();
    if (add_bos && model->impl->manifest().model->addBos && !bos.empty())
      out.push_back(bos[0]);
    GPTQ_TRY(tokenizer->encode({text, bytes}, parse_special, out));
    std::copy_n(out.begin(), std::min(out.size(), capacity), tokens);
    *count = out.size();
    return {};
  });
}

gptq_status gptq_decoder_create(const gptq_model *model, gptq_decoder **decoder,
                                gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(model);
    REQUIRE(decoder);
    GPTQ_ASSIGN(const Tokenizer *tokenizer, tokenizerOf(model));
    *decoder = new gptq_decoder{StreamDecoder(*tokenizer), {}};
    return {};
  });
}

void gptq_decoder_destroy(gptq_decoder *decoder) { delete decoder; }

gptq_status gptq_decoder_push(gptq_decoder *decoder, int32_t token,
                              const char **text, size_t *bytes,
                              gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(decoder);
    REQUIRE(text);
    REQUIRE(bytes);
    decoder->text = decoder->impl.push(token);
    *text = decoder->text.data();
    *bytes = decoder->text.size();
    return {};
  });
}

gptq_status gptq_decoder_finish(gptq_decoder *decoder, const char **text,
                                size_t *bytes, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(decoder);
    REQUIRE(text);
    REQUIRE(bytes);
    decoder->text = decoder->impl.finish();
    *text = decoder->text.data();
    *bytes = decoder->text.size();
    return {};
  });
}

gptq_status gptq_apply_chat_template(const gptq_model *model,
                                     const gptq_chat_message *messages,
                                     size_t message_count,
                                     bool add_generation_prompt, char *text,
                                     size_t capacity, size_t *bytes,
                                     gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(model);
    REQUIRE(messages || message_count == 0);
    REQUIRE(text || capacity == 0);
    REQUIRE(bytes);
    GPTQ_ASSIGN(const Tokenizer *tokenizer, tokenizerOf(model));
    const Expected<ChatTemplate> &chat = model->impl->chatTemplate();
    if (!chat)
      return chat.status();
    std::vector<ChatMessage> list;
    for (size_t i = 0; i < message_count; ++i) {
      REQUIRE(messages[i].role && messages[i].content);
      list.push_back({messages[i].role, messages[i].content});
    }
    auto nameOf = [&](const std::vector<int32_t> &ids) {
      return ids.empty() ? std::string() : tokenizer->name(ids[0]);
    };
    GPTQ_ASSIGN(std::string out, chat->render(list, add_generation_prompt,
                                              nameOf(model->impl->bosIds()),
                                              nameOf(model->impl->eosIds())));
    std::memcpy(text, out.data(), std::min(out.size(), capacity));
    *bytes = out.size();
    return {};
  });
}

//===----------------------------------------------------------------------===//
// Sampling
//===----------------------------------------------------------------------===//

gptq_status gptq_sampler_create(const gptq_sampling *sampling,
                                gptq_sampler **sampler, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(sampling);
    REQUIRE(sampler);
    GPTQ_ASSIGN(Sampler impl,
                Sampler::create({sampling->temperature, sampling->top_k,
                                 sampling->top_p, sampling->seed}));
    *sampler = new gptq_sampler{std::move(impl)};
    return {};
  });
}

void gptq_sampler_destroy(gptq_sampler *sampler) { delete sampler; }

int32_t gptq_sampler_pick(gptq_sampler *sampler, const float *logits,
                          int64_t count, int64_t position) {
  int32_t token = 0;
  (void)guarded(nullptr, [&]() -> Status {
    token = sampler->impl.pick(logits, count, position);
    return {};
  });
  return token;
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

gptq_status gptq_memory_usage(gptq_memory *memory, gptq_error *error) {
  return guarded(error, [&]() -> Status {
    REQUIRE(memory);
    FILE *file = std::fopen("/proc/self/status", "re");
    if (!file)
      return Status(StatusCode::NotFound,
                    "cannot open '/proc/self/status' to read memory usage");
    *memory = gptq_memory{};
    char line[256];
    while (std::fgets(line, sizeof(line), file)) {
      long long kib = 0;
      if (std::sscanf(line, "VmRSS: %lld", &kib) == 1)
        memory->resident_bytes = kib * 1024;
      else if (std::sscanf(line, "VmHWM: %lld", &kib) == 1)
        memory->peak_resident_bytes = kib * 1024;
    }
    std::fclose(file);
    return {};
  });
}
