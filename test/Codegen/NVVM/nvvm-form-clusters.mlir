// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-nvvm-form-clusters))" | FileCheck %s

// A workgroup's own part is a buffer of its own; what another holds lies at the same place in the other's memory. Barriers
// of the cluster are for its workgroups, others stay.
// CHECK-LABEL: func @shares
//       CHECK:   %[[OWN:.+]] = memref.alloc() : memref<4x32xf32, #gpu.address_space<workgroup>>
//       CHECK:   memref.store %{{.+}}, %[[OWN]][%arg1, %arg2]
//       CHECK:   nvvm.cluster.arrive {aligned}
//       CHECK:   nvvm.cluster.wait {aligned}
//       CHECK:   %[[RANK:.+]] = arith.index_castui %c1 : index to i32
//       CHECK:   %[[PLACE:.+]] = gptq_nvvm.pointer %[[OWN]][%arg1, %arg2]
//       CHECK:   %[[THERE:.+]] = nvvm.mapa %[[PLACE]], %[[RANK]] : !llvm.ptr<3> -> !llvm.ptr<7>
//       CHECK:   llvm.load %[[THERE]] : !llvm.ptr<7> -> f32
//       CHECK:   gpu.barrier
//       CHECK:   nvvm.cluster.arrive
//       CHECK:   nvvm.cluster.wait
func.func @shares(%x: f32, %i: index, %j: index) -> f32 {
  %c1 = arith.constant 1 : index
  %all = memref.alloc() {gptq.cluster = 2} : memref<2x4x32xf32, #gpu.address_space<workgroup>>
  %own = gpu.cluster_block_id x
  memref.store %x, %all[%own, %i, %j] : memref<2x4x32xf32, #gpu.address_space<workgroup>>
  gpu.barrier {gptq.cluster = 2}
  %0 = memref.load %all[%c1, %i, %j] : memref<2x4x32xf32, #gpu.address_space<workgroup>>
  gpu.barrier
  gpu.barrier {gptq.cluster = 2}
  return %0 : f32
}

// -----
func.func @stores_to_another(%x: f32, %i: index, %j: index) {
  %all = memref.alloc() {gptq.cluster = 2} : memref<2x4xf32, #gpu.address_space<workgroup>>
  // expected-error @+1 {{expects stores to the workgroup's own part of a cluster's buffer, and loads}}
  memref.store %x, %all[%i, %j] : memref<2x4xf32, #gpu.address_space<workgroup>>
  return
}
