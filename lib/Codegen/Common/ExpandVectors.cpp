//===- ExpandVectors.cpp - Vector operations without an instruction -------===//
//
// Part of gptq-mlir, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "gptq/Codegen/Common/Passes.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Arith/Transforms/Passes.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Math/Transforms/Passes.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/Dialect/Vector/Transforms/LoweringPatterns.h"
#include "mlir/Dialect/Vector/Transforms/VectorRewritePatterns.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "mlir/Transforms/GreedyPatternRewriteDriver.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::gptq {
#define GEN_PASS_DEF_EXPANDVECTORSPASS
#include "gptq/Codegen/Common/Passes.h.inc"
} // namespace mlir::gptq

using namespace mlir;
using namespace mlir::gptq;

namespace {
/// exp(x) = exp2(x * log2(e)).
struct ExpToExp2 final : OpRewritePattern<math::ExpOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(math::ExpOp op,
                                PatternRewriter &b) const override {
    Value factor = arith::ConstantOp::create(
        b, op.getLoc(),
        isa<VectorType>(op.getType())
            ? cast<TypedAttr>(DenseElementsAttr::get(
                  cast<ShapedType>(op.getType()),
                  b.getF32FloatAttr(llvm::numbers::log2ef).getValue()))
            : cast<TypedAttr>(b.getF32FloatAttr(llvm::numbers::log2ef)));
    Value scaled =
        arith::MulFOp::create(b, op.getLoc(), op.getOperand(), factor);
    b.replaceOpWithNewOp<math::Exp2Op>(op, scaled);
    return success();
  }
};

struct ExpandVectorsPass final
    : mlir::gptq::impl::ExpandVectorsPassBase<ExpandVectorsPass> {
  using Base::Base;

  void runOnOperation() override {
    RewritePatternSet patterns(&getContext());
    if (base2)
      patterns.add<ExpToExp2>(&getContext());
    else
      // exp as a polynomial, on vectors: no call leaves a kernel.
      populateMathPolynomialApproximationPatterns(
          patterns, [](StringRef name) { return name == "math.exp"; });
    // A bf16 is the upper half of an f32: a shift. LLVM would call a library
    // for some vectors of it.
    arith::populateExpandBFloat16Patterns(patterns);
    vector::populateVectorTransposeLoweringPatterns(
        patterns, vector::VectorTransposeLowering::EltWise);
    // What transposing a row to a column becomes.
    vector::populateVectorShapeCastLoweringPatterns(patterns);
    vector::populateVectorInsertExtractStridedSliceTransforms(patterns);
    vector::populateVectorBroadcastLoweringPatterns(patterns);
    vector::populateVectorRankReducingFMAPattern(patterns);
    vector::populateVectorFromElementsUnrollPatterns(patterns);
    if (failed(applyPatternsGreedily(getOperation(), std::move(patterns))))
      signalPassFailure();
  }
};
} // namespace
