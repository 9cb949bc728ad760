//===- runtime.h - C API of the gptq-mlir runtime ---------------*- C -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Loads and runs compiled models (`.gptqm`). The library holds no compiler and
// no global state.
//
// Errors: a function that can fail returns a gptq_status and, where the caller
// passed a gptq_error, one sentence there. On failure outputs are untouched
// unless said otherwise. No exception leaves the library.
//
// Threads: a model may be used from several threads at once. A session, a
// sampler or a decoder is used by one thread at a time. Calls that compute
// take turns on the model's own threads.
//
// Sizes are in bytes, positions and counts in tokens. Matrices are row-major.
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_RUNTIME_H
#define GPTQ_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define GPTQ_API __attribute__((visibility("default")))
#else
#define GPTQ_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum gptq_status {
  GPTQ_OK = 0,
  /// The caller passed something the function does not take.
  GPTQ_INVALID_ARGUMENT = 1,
  /// A file or a name does not exist, or cannot be opened.
  GPTQ_NOT_FOUND = 2,
  /// A file's content breaks its format.
  GPTQ_INVALID_FILE = 3,
  /// Well formed, but not something this library or this machine can do.
  GPTQ_UNSUPPORTED = 4,
  /// The machine ran out of memory, descriptors or threads.
  GPTQ_RESOURCE_EXHAUSTED = 5,
  /// The call does not fit the session's state, e.g. its context is full.
  GPTQ_OUT_OF_RANGE = 6,
  /// A GPU or its driver reported an error.
  GPTQ_DEVICE_FAILED = 7
} gptq_status;

/// Where a failing call explains itself: one sentence, zero-terminated, cut if
/// longer.
typedef struct gptq_error {
  char message[1024];
} gptq_error;

/// The library's version, e.g. "0.1.0".
GPTQ_API const char *gptq_version(void);

//===----------------------------------------------------------------------===//
// Models
//===----------------------------------------------------------------------===//

typedef struct gptq_model gptq_model;

typedef struct gptq_model_options {
  /// Threads that compute, the caller's included. 0: one for each core this
  /// process may run on.
  int32_t threads;
  /// Which of several GPUs, for models that are compiled for one.
  int32_t device;
  /// Compare every tensor with its checksum.
  bool verify;
  /// Only look inside: the code is neither loaded nor is its processor needed,
  /// and nothing can be run.
  bool inspect_only;
} gptq_model_options;

/// threads = 0, device = 0, verify = true, inspect_only = false.
GPTQ_API gptq_model_options gptq_model_default_options(void);

/// Maps and checks the compiled model at `path`. `options` may be null. The
/// file must not change while the model is open. Release with
/// gptq_model_close.
GPTQ_API gptq_status gptq_model_open(const char *path,
                                     const gptq_model_options *options,
                                     gptq_model **model, gptq_error *error);

/// Releases a model; its sessions and decoders must be gone. Null is fine.
GPTQ_API void gptq_model_close(gptq_model *model);

/// Strings belong to the model.
typedef struct gptq_model_info {
  const char *producer;
  const char *target;
  /// True for a language model: the fields down to `add_bos` are set.
  bool is_language_model;
  const char *name;
  const char *family;
  const char *quantization;
  int64_t vocab_size;
  int64_t max_context;
  int64_t parameters;
  bool add_bos;
  /// True if text can be encoded and decoded.
  bool has_tokenizer;
  bool has_chat_template;
  /// True if every row's logits can be computed (gptq_session_score).
  bool has_score;
  /// True if the device can choose the most likely tokens by itself
  /// (gptq_session_next).
  bool has_next;
  /// Largest top_k of samplers that the device can choose for by itself
  /// (gptq_session_sample); 0 if it cannot.
  int64_t max_top_k;
  /// Threads of the host that compute.
  int32_t threads;
  int64_t file_bytes;
  int64_t weight_bytes;
  int64_t code_bytes;
  /// Address space of one session's caches. Memory is used as tokens come.
  int64_t state_bytes;
  /// Working memory, shared by all sessions.
  int64_t arena_bytes;
  int64_t scratch_bytes;
  size_t entry_count;
} gptq_model_info;

GPTQ_API void gptq_model_get_info(const gptq_model *model,
                                  gptq_model_info *info);

/// Where a model runs. Strings belong to the model.
typedef struct gptq_device_info {
  /// "cpu", or the name of a GPU.
  const char *name;
  /// Which of the model's code runs there.
  const char *code;
  /// On a GPU: what the model and its sessions take of its memory, and what is
  /// free of how much. 0 where the host's memory is used.
  int64_t model_bytes;
  int64_t free_bytes;
  int64_t total_bytes;
} gptq_device_info;

/// Fails for a model opened for inspection only.
GPTQ_API gptq_status gptq_model_get_device(const gptq_model *model,
                                           gptq_device_info *info,
                                           gptq_error *error);

/// The manifest, as JSON text. Belongs to the model.
GPTQ_API const char *gptq_model_manifest(const gptq_model *model);

/// The token ids that start and end a text. Arrays belong to the model.
GPTQ_API const int32_t *gptq_model_bos_ids(const gptq_model *model,
                                           size_t *count);
GPTQ_API const int32_t *gptq_model_eos_ids(const gptq_model *model,
                                           size_t *count);

typedef enum gptq_dtype { GPTQ_F32 = 0, GPTQ_I32 = 1 } gptq_dtype;

#define GPTQ_MAX_RANK 8

/// An input or output of an entry. A size of -1 is the number of rows of the
/// call.
typedef struct gptq_port_info {
  const char *name;
  gptq_dtype dtype;
  size_t rank;
  int64_t shape[GPTQ_MAX_RANK];
} gptq_port_info;

typedef struct gptq_entry_info {
  const char *name;
  /// Most rows of one call.
  int64_t max_rows;
  size_t input_count;
  size_t output_count;
} gptq_entry_info;

/// Entry `index`, below the info's entry_count.
GPTQ_API gptq_status gptq_model_get_entry(const gptq_model *model, size_t index,
                                          gptq_entry_info *info,
                                          gptq_error *error);
/// Input (or output) `index` of an entry.
GPTQ_API gptq_status gptq_model_get_port(const gptq_model *model,
                                         const char *entry, bool is_output,
                                         size_t index, gptq_port_info *info,
                                         gptq_error *error);

//===----------------------------------------------------------------------===//
// Sessions
//===----------------------------------------------------------------------===//

/// One conversation: the caches and how many tokens they hold.
typedef struct gptq_session gptq_session;

GPTQ_API gptq_status gptq_session_create(gptq_model *model,
                                         gptq_session **session,
                                         gptq_error *error);
GPTQ_API void gptq_session_destroy(gptq_session *session);

/// Tokens in the session, 0 to max_context.
GPTQ_API int64_t gptq_session_position(const gptq_session *session);

/// Forgets all tokens but the first `position`. 0 also gives memory back.
GPTQ_API gptq_status gptq_session_rewind(gptq_session *session,
                                         int64_t position, gptq_error *error);

/// Appends `count` >= 1 tokens, in as many calls of `generate` as needed, and
/// computes the logits of the last one. On failure the session is as before.
GPTQ_API gptq_status gptq_session_eval(gptq_session *session,
                                       const int32_t *tokens, int64_t count,
                                       gptq_error *error);

/// Logits of the last token of the last gptq_session_eval, [vocab_size].
/// Belongs to the session and changes with the next call; null before the
/// first and after gptq_session_next and gptq_session_sample.
GPTQ_API const float *gptq_session_logits(const gptq_session *session);

/// Appends `token` and writes the most likely next one to `chosen`, the lowest
/// id among equals. For models with `has_next`. The device goes on with that
/// token before it is asked to; appending it is what is fast.
GPTQ_API gptq_status gptq_session_next(gptq_session *session, int32_t token,
                                       int32_t *chosen, gptq_error *error);

typedef struct gptq_sampler gptq_sampler;

/// Whether the model's device can choose the tokens of `sampler` by itself:
/// with a temperature of 0 for models with `has_next`, else with a top_k of 1
/// to `max_top_k`.
GPTQ_API bool gptq_model_chooses(const gptq_model *model,
                                 const gptq_sampler *sampler);

/// Appends `token` and writes to `chosen` what gptq_sampler_pick would choose
/// for the position behind it, but on the device, which goes on with that token
/// before it is asked to. Where gptq_model_chooses says so.
GPTQ_API gptq_status gptq_session_sample(gptq_session *session,
                                         const gptq_sampler *sampler,
                                         int32_t token, int32_t *chosen,
                                         gptq_error *error);

/// Appends `count` >= 1 tokens and writes the logits of each to `logits`,
/// [count, vocab_size]. On failure the session is as before, `logits`
/// undefined.
GPTQ_API gptq_status gptq_session_score(gptq_session *session,
                                        const int32_t *tokens, int64_t count,
                                        float *logits, gptq_error *error);

/// An array of the caller. Data needs no alignment.
typedef struct gptq_tensor {
  gptq_dtype dtype;
  size_t rank;
  int64_t shape[GPTQ_MAX_RANK];
  void *data;
} gptq_tensor;

/// Runs the lone function `entry` on all its inputs, in order. The number of
/// rows follows from the inputs' shapes. Outputs come with dtype, rank, shape
/// and memory set by the caller and are checked against the entry.
GPTQ_API gptq_status gptq_session_run(gptq_session *session, const char *entry,
                                      const gptq_tensor *inputs,
                                      size_t input_count, gptq_tensor *outputs,
                                      size_t output_count, gptq_error *error);

//===----------------------------------------------------------------------===//
// Text
//===----------------------------------------------------------------------===//

/// Encodes `bytes` bytes of UTF-8. With `add_bos`, the model's start token
/// comes first if the model wants one. With `parse_special`, names of special
/// tokens inside the text become those tokens; pass false for text of somebody
/// who must not write them. Writes up to `capacity` ids and sets `count` to
/// their full number; call again if that is larger.
GPTQ_API gptq_status gptq_encode(const gptq_model *model, const char *text,
                                 size_t bytes, bool add_bos, bool parse_special,
                                 int32_t *tokens, size_t capacity,
                                 size_t *count, gptq_error *error);

/// Decodes tokens as they come. Special tokens give no text.
typedef struct gptq_decoder gptq_decoder;

GPTQ_API gptq_status gptq_decoder_create(const gptq_model *model,
                                         gptq_decoder **decoder,
                                         gptq_error *error);
GPTQ_API void gptq_decoder_destroy(gptq_decoder *decoder);

/// Adds a token and returns the text that is now certain: a character whose
/// last bytes are still to come is held back. The text is valid UTF-8, not
/// zero-terminated, and belongs to the decoder until its next call.
GPTQ_API gptq_status gptq_decoder_push(gptq_decoder *decoder, int32_t token,
                                       const char **text, size_t *bytes,
                                       gptq_error *error);

/// Returns what was held back, as U+FFFD, and starts over.
GPTQ_API gptq_status gptq_decoder_finish(gptq_decoder *decoder,
                                         const char **text, size_t *bytes,
                                         gptq_error *error);

typedef struct gptq_chat_message {
  /// "system", "user" or "assistant".
  const char *role;
  const char *content;
} gptq_chat_message;

/// Renders messages with the model's chat template. Writes up to `capacity`
/// bytes without a zero and sets `bytes` to the full size. Encode the result
/// with add_bos = false and parse_special = true: the template writes the
/// start token itself.
GPTQ_API gptq_status gptq_apply_chat_template(const gptq_model *model,
                                              const gptq_chat_message *messages,
                                              size_t message_count,
                                              bool add_generation_prompt,
                                              char *text, size_t capacity,
                                              size_t *bytes, gptq_error *error);

//===----------------------------------------------------------------------===//
// Sampling
//===----------------------------------------------------------------------===//

typedef struct gptq_sampling {
  /// 0: the most likely token (the lowest id among equals). Otherwise logits
  /// are divided by it.
  float temperature;
  /// Keep the k most likely tokens, the lower id among equals; 0 keeps all.
  int32_t top_k;
  /// Keep the fewest tokens whose probabilities reach p; 1 keeps all.
  float top_p;
  /// Equal seeds give equal choices: the random numbers are those of
  /// Philox4x32-10 with this key, the position being the counter.
  uint64_t seed;
} gptq_sampling;

GPTQ_API gptq_status gptq_sampler_create(const gptq_sampling *sampling,
                                         gptq_sampler **sampler,
                                         gptq_error *error);
GPTQ_API void gptq_sampler_destroy(gptq_sampler *sampler);

/// Chooses the token at `position` (gptq_session_position) by the logits of the
/// one in front, [count]; count >= 1. Not-a-number is never chosen unless there
/// is nothing else.
GPTQ_API int32_t gptq_sampler_pick(gptq_sampler *sampler, const float *logits,
                                   int64_t count, int64_t position);

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

typedef struct gptq_memory {
  /// Of this process, now and at most so far.
  int64_t resident_bytes;
  int64_t peak_resident_bytes;
} gptq_memory;

GPTQ_API gptq_status gptq_memory_usage(gptq_memory *memory, gptq_error *error);

#ifdef __cplusplus
}
#endif

#endif // GPTQ_RUNTIME_H
