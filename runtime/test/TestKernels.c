//===- TestKernels.c - Kernels of a toy language model --------------------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The toy model: x = E[token]; the state keeps every x; y is the mean of all x
// so far; logits = W y. Small enough to work out by hand, and its result
// depends on M, P, the state and the scratch memory as a real model's does.
//
//===----------------------------------------------------------------------===//

#include "runtime/abi/KernelABI.h"

enum { Dim = 8, Vocab = 33, RowsPerGroup = 3, VocabPerGroup = 4 };

/// args: tokens, E, x. One workgroup takes RowsPerGroup rows.
void toy_embed(void *const *args, const int64_t *dims, int64_t workgroup,
               void *scratch) {
  const int32_t *tokens = args[0];
  const float *table = args[1];
  float *x = args[2];
  for (int64_t r = workgroup * RowsPerGroup;
       r < (workgroup + 1) * RowsPerGroup && r < dims[GPTQ_DIM_M]; ++r)
    for (int d = 0; d < Dim; ++d)
      x[r * Dim + d] = table[tokens[r] * Dim + d];
}

/// args: x, state. One workgroup a row.
void toy_store(void *const *args, const int64_t *dims, int64_t workgroup,
               void *scratch) {
  const float *x = args[0];
  float *state = args[1];
  for (int d = 0; d < Dim; ++d)
    state[(dims[GPTQ_DIM_P] + workgroup) * Dim + d] = x[workgroup * Dim + d];
}

/// args: state, y. One workgroup a row; sums in scratch memory.
void toy_mean(void *const *args, const int64_t *dims, int64_t workgroup,
              void *scratch) {
  const float *state = args[0];
  float *y = args[1];
  float *sum = scratch;
  int64_t count = dims[GPTQ_DIM_P] + workgroup + 1;
  for (int d = 0; d < Dim; ++d)
    sum[d] = 0;
  for (int64_t i = 0; i < count; ++i)
    for (int d = 0; d < Dim; ++d)
      sum[d] += state[i * Dim + d];
  for (int d = 0; d < Dim; ++d)
    y[workgroup * Dim + d] = sum[d] / (float)count;
}

static void project(const float *y, const float *w, float *out, int64_t first) {
  for (int64_t v = first; v < first + VocabPerGroup && v < Vocab; ++v) {
    float sum = 0;
    for (int d = 0; d < Dim; ++d)
      sum += w[v * Dim + d] * y[d];
    out[v] = sum;
  }
}

/// args: y, W, logits. Workgroups cover the last row's vocabulary.
void toy_last_logits(void *const *args, const int64_t *dims, int64_t workgroup,
                     void *scratch) {
  const float *y = args[0];
  project(y + (dims[GPTQ_DIM_M] - 1) * Dim, args[1], args[2],
          workgroup * VocabPerGroup);
}

/// args: y, W, logits. Workgroups cover rows times the vocabulary.
void toy_all_logits(void *const *args, const int64_t *dims, int64_t workgroup,
                    void *scratch) {
  int64_t groups = (Vocab + VocabPerGroup - 1) / VocabPerGroup;
  int64_t row = workgroup / groups;
  const float *y = args[0];
  float *out = args[2];
  project(y + row * Dim, args[1], out + row * Vocab,
          workgroup % groups * VocabPerGroup);
}

/// args: a [M, 4], b [4], out [M, 4]; out = a + b. One workgroup a row.
void toy_add(void *const *args, const int64_t *dims, int64_t workgroup,
             void *scratch) {
  const float *a = args[0], *b = args[1];
  float *out = args[2];
  for (int i = 0; i < 4; ++i)
    out[workgroup * 4 + i] = a[workgroup * 4 + i] + b[i];
}

/// args: a, b in f16, [M, 4]; b = -a. One workgroup a row.
void toy_negate(void *const *args, const int64_t *dims, int64_t workgroup,
                void *scratch) {
  const uint16_t *a = args[0];
  uint16_t *b = args[1];
  for (int i = 0; i < 4; ++i)
    b[workgroup * 4 + i] = a[workgroup * 4 + i] ^ 0x8000;
}
