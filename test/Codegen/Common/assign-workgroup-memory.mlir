// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-assign-workgroup-memory))" | FileCheck %s
// Buffers lie one after another, each at a multiple of 64 bytes.

// CHECK-LABEL: func @two(
//  CHECK-SAME:   %[[BYTES:.+]]: memref<?xi8, #gpu.address_space<workgroup>>) attributes {gptq.kernel, gptq.scratch_bytes = 192 : i64}
//   CHECK-DAG:   %[[C0:.+]] = arith.constant 0 : index
//   CHECK-DAG:   memref.view %[[BYTES]][%[[C0]]][] : {{.*}} to memref<5x5xf32
//   CHECK-DAG:   %[[C128:.+]] = arith.constant 128 : index
//   CHECK-DAG:   memref.view %[[BYTES]][%[[C128]]][] : {{.*}} to memref<3xf32
func.func @two() attributes {gptq.kernel} {
  %0 = memref.alloc() : memref<5x5xf32, #gpu.address_space<workgroup>>
  %1 = memref.alloc() : memref<3xf32, #gpu.address_space<workgroup>>
  return
}

// Those that ask for more start at more.
// CHECK-LABEL: func @aligned
//  CHECK-SAME:   gptq.scratch_bytes = 1088 : i64
//       CHECK:   %[[C1024:.+]] = arith.constant 1024 : index
//       CHECK:   memref.view %{{.+}}[%[[C1024]]][] : {{.*}} to memref<16xf32
func.func @aligned() attributes {gptq.kernel} {
  %0 = memref.alloc() : memref<3xf32, #gpu.address_space<workgroup>>
  %1 = memref.alloc() {alignment = 1024 : i64} : memref<16xf32, #gpu.address_space<workgroup>>
  return
}

// Those that are used when the others are not any more lie where these are.
// CHECK-LABEL: func @after_others
//  CHECK-SAME:   gptq.scratch_bytes = 192 : i64
//   CHECK-DAG:   memref.view %{{.+}}[%c0{{.*}}][] : {{.*}} to memref<5x5xf32
//   CHECK-DAG:   memref.view %{{.+}}[%c0{{.*}}][] : {{.*}} to memref<2xf32
//   CHECK-DAG:   memref.view %{{.+}}[%c128{{.*}}][] : {{.*}} to memref<3xf32
//   CHECK-DAG:   memref.view %{{.+}}[%c64{{.*}}][] : {{.*}} to memref<4xf32
func.func @after_others() attributes {gptq.kernel} {
  %0 = memref.alloc() : memref<5x5xf32, #gpu.address_space<workgroup>>
  %1 = memref.alloc() {gptq.after_others} : memref<2xf32, #gpu.address_space<workgroup>>
  %2 = memref.alloc() : memref<3xf32, #gpu.address_space<workgroup>>
  %3 = memref.alloc() {gptq.after_others} : memref<4xf32, #gpu.address_space<workgroup>>
  return
}

// -----
func.func @only_workgroup_memory() attributes {gptq.kernel} {
  // expected-error @+1 {{expects kernels to allocate in workgroup memory only}}
  %0 = memref.alloc() : memref<5x5xf32>
  return
}
