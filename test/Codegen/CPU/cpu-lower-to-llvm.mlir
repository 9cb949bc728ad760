// RUN: gptq-opt %s -pass-pipeline="builtin.module(gptq-cpu-lower-to-llvm)" | FileCheck %s
// A kernel becomes a function of the ABI's four arguments: pointers from the first table, M and the position from the
// second, a dynamic first dimension is M, and workgroup memory is plain memory.

module @kernels {
  //       CHECK: llvm.func @add(
  //  CHECK-SAME:   %[[ARGS:.+]]: !llvm.ptr, %[[DIMS:.+]]: !llvm.ptr, %[[WG:.+]]: i64, %[[SCRATCH:.+]]: !llvm.ptr)
  //  CHECK-SAME:   gptq.grid = [array<i64: 1, 0, 0, 1>], gptq.kernel, gptq.scratch_bytes = 64 : i64
  //       CHECK:   llvm.getelementptr %[[DIMS]][0] : (!llvm.ptr) -> !llvm.ptr, i64
  //       CHECK:   %[[M:.+]] = llvm.load
  //       CHECK:   llvm.getelementptr %[[DIMS]][1]
  //       CHECK:   llvm.getelementptr %[[ARGS]][0] : (!llvm.ptr) -> !llvm.ptr, !llvm.ptr
  //       CHECK:   %[[X:.+]] = llvm.load
  //       CHECK:   llvm.call @add.body(%[[X]], %[[X]], %{{.+}}, %[[M]], %{{.+}}, %{{.+}}, %{{.+}}, %[[M]], %{{.+}}, %[[WG]], %[[SCRATCH]], %[[SCRATCH]]
  func.func @add(%x: memref<?x8xf32>, %m: index, %p: index, %wg: index, %scratch: memref<?xi8, #gpu.address_space<workgroup>>)
      attributes {gptq.kernel, gptq.grid = [array<i64: 1, 0, 0, 1>], gptq.scratch_bytes = 64 : i64} {
    %c0 = arith.constant 0 : index
    %0 = vector.load %x[%wg, %c0] : memref<?x8xf32>, vector<8xf32>
    %1 = arith.addf %0, %0 : vector<8xf32>
    %2 = memref.view %scratch[%c0][] : memref<?xi8, #gpu.address_space<workgroup>> to memref<8xf32, #gpu.address_space<workgroup>>
    vector.store %1, %2[%c0] : memref<8xf32, #gpu.address_space<workgroup>>, vector<8xf32>
    return
  }

  // Masked vectors of bf16 are loaded as integers, of which no library makes anything.
  // CHECK-LABEL: llvm.func @masked_bf16
  //       CHECK:   llvm.intr.masked.load {{.*}} -> vector<8xi16>
  //       CHECK:   llvm.bitcast %{{.+}} : vector<8xi16> to vector<8xbf16>
  func.func @masked_bf16(%x: memref<8xbf16>, %mask: vector<8xi1>, %rest: vector<8xbf16>) -> vector<8xbf16> {
    %c0 = arith.constant 0 : index
    %0 = vector.maskedload %x[%c0], %mask, %rest : memref<8xbf16>, vector<8xi1>, vector<8xbf16> into vector<8xbf16>
    return %0 : vector<8xbf16>
  }
}
