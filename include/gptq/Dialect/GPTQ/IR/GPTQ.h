//===- GPTQ.h - The gptq dialect --------------------------------*- C++ -*-===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef GPTQ_DIALECT_GPTQ_IR_GPTQ_H
#define GPTQ_DIALECT_GPTQ_IR_GPTQ_H

#include "mlir/Bytecode/BytecodeOpInterface.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/BuiltinTypes.h"
#include "mlir/IR/Dialect.h"
#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/SymbolTable.h"
#include "mlir/Interfaces/DestinationStyleOpInterface.h"
#include "mlir/Interfaces/InferTypeOpInterface.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"
#include "mlir/Interfaces/TilingInterface.h"

#include <array>
#include <optional>

#include "gptq/Dialect/GPTQ/IR/GPTQDialect.h.inc"
#include "gptq/Dialect/GPTQ/IR/GPTQEnums.h.inc"

#define GET_ATTRDEF_CLASSES
#include "gptq/Dialect/GPTQ/IR/GPTQAttrs.h.inc"

#define GET_OP_CLASSES
#include "gptq/Dialect/GPTQ/IR/GPTQOps.h.inc"

namespace mlir::gptq {

/// Whether an epilogue makes one column of a gate's and an up column.
inline bool isGated(Epilogue epilogue) {
  return epilogue >= Epilogue::SiluMul && epilogue <= Epilogue::ReluMul;
}
/// The activation of an epilogue that is one.
Activation getActivation(Epilogue epilogue);
/// The epilogue that is an activation of a result, or of the gate columns.
Epilogue getEpilogue(Activation activation, bool isGated);

/// Name of the attribute that holds an op's plans (an array, one per range of
/// M), and of the one that holds the single plan of an op inside a kernel.
inline constexpr llvm::StringLiteral kPlansAttr = "gptq.plans";
inline constexpr llvm::StringLiteral kPlanAttr = "gptq.plan";

/// Beside `gptq.plans`, for readers only: an array of dictionaries that say, by
/// field, why each plan is as it is.
inline constexpr llvm::StringLiteral kReasonsAttr = "gptq.reasons";

/// Name of the attribute with which importers and passes name an op for
/// people: "layers.0.self_attn.q_proj".
inline constexpr llvm::StringLiteral kLabelAttr = "gptq.label";

/// Marks an entry function of the model; an integer, the largest M of a call.
inline constexpr llvm::StringLiteral kMaxRowsAttr = "gptq.max_m";

/// On an entry that samples: of how many tokens, the likeliest, at most.
inline constexpr llvm::StringLiteral kMaxTopKAttr = "gptq.max_top_k";

/// Words that say how `gptq.sample_token` draws.
inline constexpr int64_t kSamplingWords = 6;

/// Marks the function of one kernel, and the nested module that holds them.
inline constexpr llvm::StringLiteral kKernelAttr = "gptq.kernel";
inline constexpr llvm::StringLiteral kKernelsModule = "kernels";

/// On the module of kernels: the name of the target they are for.
inline constexpr llvm::StringLiteral kTargetAttr = "gptq.target";

/// On a kernel: its number of workgroups, an array of i64 arrays [a, b, c, d],
/// the product over them of ceil((a*M + b*P + c) / d); and the bytes of
/// workgroup memory it needs.
inline constexpr llvm::StringLiteral kGridAttr = "gptq.grid";
inline constexpr llvm::StringLiteral kScratchAttr = "gptq.scratch_bytes";

/// On an argument of a kernel, as a unit attribute: it is a weight, which no
/// kernel writes.
inline constexpr llvm::StringLiteral kWeightAttr = "gptq.weight";

/// On a dispatch of products with the weights of several experts: how many of
/// them each row of the call is multiplied by, at most.
inline constexpr llvm::StringLiteral kSlotsAttr = "gptq.slots";

/// On a kernel: threads of one workgroup; 1 where there is none.
inline constexpr llvm::StringLiteral kThreadsAttr = "gptq.threads";

/// On a kernel of a GPU: workgroups that share a core at a time; and, as a unit
/// attribute, that the kernel waits by itself for the one in front of it.
inline constexpr llvm::StringLiteral kOccupancyAttr = "gptq.occupancy";
inline constexpr llvm::StringLiteral kOverlapAttr = "gptq.overlap";

/// On a loop over parts of K: how many of them are on their way or in use; the
/// bytes of registers for what of the first parts is loaded before all else,
/// absent: none; and of those bytes how many are asked for before the kernel in
/// front has ended, absent: all.
inline constexpr llvm::StringLiteral kStagesAttr = "gptq.stages";
inline constexpr llvm::StringLiteral kFirstBytesAttr = "gptq.first_bytes";
inline constexpr llvm::StringLiteral kAheadBytesAttr = "gptq.ahead_bytes";

/// On a load that was moved in front of where its value is used, so that it is
/// not moved back.
inline constexpr llvm::StringLiteral kPrefetchedAttr = "gptq.prefetched";

/// On a prefetched load of weights: where the kernel waits for the one in
/// front, it follows the loads of activations instead of going ahead of them.
inline constexpr llvm::StringLiteral kFollowsAttr = "gptq.follows";

/// On a load of what no kernel of the same call writes: it need not wait for
/// those in front.
inline constexpr llvm::StringLiteral kSettledAttr = "gptq.settled";

/// On a kernel of a GPU: it leaves P + 1 for the next call.
inline constexpr llvm::StringLiteral kAdvancesAttr = "gptq.advances";

/// On arguments and results of an entry function: their name for users.
inline constexpr llvm::StringLiteral kNameAttr = "gptq.name";

/// On the module, all optional: a dictionary about the model (family, name,
/// vocab_size, max_context, bos_ids, eos_ids, add_bos, parameters,
/// quantization), its tokenizer ({kind, files}, and {contents} of files that
/// exist nowhere else), its chat template, and the folder that file names are
/// relative to.
inline constexpr llvm::StringLiteral kModelAttr = "gptq.model";
inline constexpr llvm::StringLiteral kTokenizerAttr = "gptq.tokenizer";
inline constexpr llvm::StringLiteral kChatTemplateAttr = "gptq.chat_template";
inline constexpr llvm::StringLiteral kFolderAttr = "gptq.folder";

/// Whether `operand` is one of those that its op takes as rows of activations
/// (`GPTQ_Rows`): a third dimension, in the middle, is slots of each row.
bool isRows(OpOperand &operand);

/// The bytes of the tokenizer's file `name`, where `module` holds them itself.
std::optional<llvm::StringRef> findTokenizerFile(ModuleOp module,
                                                 llvm::StringRef name);

} // namespace mlir::gptq

#endif // GPTQ_DIALECT_GPTQ_IR_GPTQ_H
