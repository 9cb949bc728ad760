// RUN: gptq-opt %s -gptq-nvvm-lower-to-llvm | FileCheck %s
// RUN: gptq-opt %s -gptq-nvvm-lower-to-llvm=stream-bytes=128 | FileCheck %s --check-prefix=SM75
// One pointer per buffer, then one to M and P; the grid's index is the workgroup. Loads that stream or that were moved
// ahead are instructions of their own, others are not; what was moved ahead is no load of constants, which ptxas would take back
// behind the wait. Only weights are not aliased: other buffers change while a kernel waits.

//       CHECK: llvm.mlir.global external @workgroup_memory() {addr_space = 3 : i32, alignment = 1024 : i64} : !llvm.array<0 x i8>
// CHECK-LABEL: llvm.func @kernel(
//  CHECK-SAME:   !llvm.ptr<1> {llvm.align = 64 : i64, llvm.noalias}, %{{.+}}: !llvm.ptr<1> {llvm.align = 64 : i64}, %{{.+}}: !llvm.ptr<1> {llvm.align = 64 : i64}, %{{.+}}: !llvm.ptr<1>
//  CHECK-SAME:   gptq.threads = 64 : i64
//  CHECK-SAME:   nvvm.kernel
//  CHECK-SAME:   nvvm.maxntid = array<i32: 64, 1, 1>
//  CHECK-SAME:   nvvm.minctasm = 2 : i32
//   CHECK-DAG:   nvvm.read.ptx.sreg.ctaid.x
//   CHECK-DAG:   llvm.mlir.addressof @workgroup_memory
//       CHECK:   llvm.call @kernel.body
//       CHECK: llvm.func internal @kernel.body
//       CHECK:   llvm.inline_asm has_side_effects {{.*}}"ld.global.nc.L1::no_allocate.L2::256B.v4.b32 {$0,$1,$2,$3},[$4];", "=r,=r,=r,=r,l"
//       CHECK:   llvm.inline_asm has_side_effects {{.*}}"ld.global.v2.b32 {$0,$1},[$2];", "=r,=r,l"
//       CHECK:   llvm.inline_asm has_side_effects {{.*}}"ld.global.L1::no_allocate.L2::256B.v4.b32 {$0,$1,$2,$3},[$4];", "=r,=r,=r,=r,l"
//   CHECK-NOT:   llvm.inline_asm
//       CHECK:   nvvm.shfl.sync bfly
//       CHECK:   llvm.return
// SM75: ld.global.nc.L1::no_allocate.L2::128B.v4.b32
func.func @kernel(%w: memref<1x1x128xi32> {gptq.weight}, %x: memref<1x64xf16>, %y: memref<?x4xf32>, %m: index, %p: index, %group: index, %scratch: memref<?xi8, #gpu.address_space<workgroup>>)
    attributes {gptq.kernel, gptq.threads = 64 : i64, gptq.occupancy = 2 : i64, gptq.grid = [array<i64: 0, 0, 1, 1>], gptq.scratch_bytes = 64 : i64} {
  %c0 = arith.constant 0 : index
  %i = gpu.thread_id x
  %a = vector.load %w[%c0, %c0, %c0] {alignment = 16 : i64, nontemporal = true} : memref<1x1x128xi32>, vector<4xi32>
  %b = vector.load %x[%c0, %c0] {alignment = 8 : i64, gptq.prefetched} : memref<1x64xf16>, vector<4xf16>
  %c = vector.load %x[%c0, %i] {alignment = 8 : i64} : memref<1x64xf16>, vector<4xf16>
  %d = vector.load %w[%c0, %c0, %i] {alignment = 16 : i64, nontemporal = true, gptq.prefetched} : memref<1x1x128xi32>, vector<4xi32>
  %t = arith.addi %a, %d : vector<4xi32>
  %f = arith.sitofp %t : vector<4xi32> to vector<4xf32>
  %g = arith.extf %b : vector<4xf16> to vector<4xf32>
  %h = arith.extf %c : vector<4xf16> to vector<4xf32>
  %s = vector.fma %f, %g, %h : vector<4xf32>
  %e = vector.extract %s[0] : f32 from vector<4xf32>
  %mask = arith.constant 16 : i32
  %width = arith.constant 32 : i32
  %o, %ok = gpu.shuffle xor %e, %mask, %width : f32
  %room = memref.view %scratch[%c0][] : memref<?xi8, #gpu.address_space<workgroup>> to memref<16xf32, #gpu.address_space<workgroup>>
  memref.store %o, %room[%c0] : memref<16xf32, #gpu.address_space<workgroup>>
  vector.store %s, %y[%group, %c0] : memref<?x4xf32>, vector<4xf32>
  return
}

// Sums come first among the operands of the instruction; those that are added to are tied to those that come out.
// CHECK-LABEL: llvm.func internal @warpgroup.body
//       CHECK:   %[[AT:.+]] = llvm.getelementptr {{.*}} !llvm.ptr<3>
//       CHECK:   nvvm.mbarrier.init %[[AT]]
//       CHECK:   llvm.inline_asm has_side_effects {{.*}}"wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {$0,$1,$2,$3},{$4,$5,$6,$7},$8,0,1,1,0;", "=f,=f,=f,=f,r,r,r,r,l"
//       CHECK:   llvm.inline_asm has_side_effects {{.*}}"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {$0,$1,$2,$3},{$4,$5,$6,$7},$8,1,1,1,0;", "=f,=f,=f,=f,r,r,r,r,l,0,1,2,3"
func.func @warpgroup(%y: memref<?x4xf32>, %m: index, %p: index, %group: index, %scratch: memref<?xi8, #gpu.address_space<workgroup>>)
    attributes {gptq.kernel, gptq.threads = 128 : i64, gptq.occupancy = 1 : i64, gptq.grid = [array<i64: 0, 0, 1, 1>], gptq.scratch_bytes = 64 : i64} {
  %c0 = arith.constant 0 : index
  %a = arith.constant 7 : i32
  %b = arith.constant 9 : i64
  %count = arith.constant 1 : i32
  %barrier = gptq_nvvm.pointer %scratch[%m] : memref<?xi8, #gpu.address_space<workgroup>> -> !llvm.ptr<3>
  nvvm.mbarrier.init %barrier, %count : !llvm.ptr<3>, i32
  %s:4 = gptq_nvvm.warpgroup_mma f16 %b by %a, %a, %a, %a -> f32, f32, f32, f32
  %t:4 = gptq_nvvm.warpgroup_mma bf16 %b by %a, %a, %a, %a acc %s#0, %s#1, %s#2, %s#3 : f32, f32, f32, f32 -> f32, f32, f32, f32
  memref.store %t#0, %y[%group, %c0] : memref<?x4xf32>
  return
}

// Nothing that touches memory may be moved across a wait, which the intrinsic would not say.
// CHECK-LABEL: llvm.func internal @waits.body
//       CHECK:   llvm.inline_asm has_side_effects {{.*}}"griddepcontrol.wait;", "~{memory}"
//       CHECK:   llvm.load
//   CHECK-NOT:   nvvm.griddepcontrol wait
func.func @waits(%x: memref<1x64xf16>, %y: memref<1x64xf16>, %m: index, %p: index, %group: index)
    attributes {gptq.kernel, gptq.overlap, gptq.threads = 64 : i64, gptq.grid = [array<i64: 0, 0, 1, 1>]} {
  %c0 = arith.constant 0 : index
  nvvm.griddepcontrol launch_dependents
  nvvm.griddepcontrol wait
  %a = memref.load %x[%c0, %c0] : memref<1x64xf16>
  memref.store %a, %y[%c0, %c0] : memref<1x64xf16>
  return
}

// A kernel that leaves P + 1: the first thread of its only workgroup does, at the end.
// It overlaps the one in front: its buffers change while it runs, so nothing is said that makes loads of them constant.
// CHECK-LABEL: llvm.func @advance(
//  CHECK-SAME:   !llvm.ptr<1> {llvm.align = 64 : i64}, %{{.+}}: !llvm.ptr<1> {llvm.align = 64 : i64})
//       CHECK:   %[[P:.+]] = llvm.load
//       CHECK:   llvm.call @advance.body
//       CHECK:   %[[IS:.+]] = llvm.icmp "eq" %{{.+}}, %{{.+}} : i32
//       CHECK:   llvm.cond_br %[[IS]], ^bb1, ^bb2
//       CHECK: ^bb1:
//       CHECK:   %[[NEXT:.+]] = llvm.add %[[P]], %{{.+}} : i64
//       CHECK:   llvm.store %[[NEXT]]
//       CHECK: ^bb2:
//       CHECK:   llvm.return
func.func @advance(%y: memref<1xi32>, %m: index, %p: index, %group: index)
    attributes {gptq.kernel, gptq.advances, gptq.overlap, gptq.threads = 64 : i64, gptq.grid = [array<i64: 0, 0, 1, 1>]} {
  return
}

// Workgroups that read each other's memory are started together.
// CHECK-LABEL: llvm.func @together(
//  CHECK-SAME:   nvvm.cluster_dim = array<i32: 2, 1, 1>
func.func @together(%y: memref<?x4xf32>, %m: index, %p: index, %group: index, %scratch: memref<?xi8, #gpu.address_space<workgroup>>)
    attributes {gptq.kernel, gptq.cluster = 2 : i64, gptq.threads = 64 : i64, gptq.occupancy = 1 : i64, gptq.grid = [array<i64: 0, 0, 2, 1>], gptq.scratch_bytes = 64 : i64} {
  return
}

// A power of two is one instruction.
// CHECK-LABEL: llvm.func @power
//   CHECK-NOT:   llvm.intr.exp2
//       CHECK:   llvm.call_intrinsic "llvm.nvvm.ex2.approx.ftz.f32"(%{{.+}}) : (f32) -> f32
func.func @power(%a: memref<4xf32>) attributes {gptq.kernel, gptq.threads = 32 : i64} {
  %c0 = arith.constant 0 : index
  %v = memref.load %a[%c0] : memref<4xf32>
  %e = math.exp2 %v : f32
  memref.store %e, %a[%c0] : memref<4xf32>
  return
}
