// RUN: gptq-opt %s -split-input-file -verify-diagnostics -pass-pipeline="builtin.module(func.func(gptq-nvvm-lower-warpgroup-dot))" | FileCheck %s

#plan = #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", tileM = 16, tileN = 64, tileK = 0, rows = 16, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "accumulator", zero = "weight", threads = 128, stepK = 128, stages = 4>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">

// The place of the ring is a number in the descriptor. All codes are loaded first. A block of them becomes the registers
// of four steps, an instruction for the bits of two codes and their exponent, which the unit multiplies by the lines of the
// image, 32 bytes further each, while the next block is unpacked; the second block meets the next 64 columns, 16 rows of
// 128 bytes further. What was added to codes and the zero point leave exactly.
// CHECK-LABEL: func @from_zero
//  CHECK-SAME:   %[[RING:.+]]: memref<4x16x128xf16{{.*}}>, %[[W:.+]]: memref<4x2x128xi32{{.*}}>, %[[SLOT:[^:]+]]: index
//       CHECK:   arith.constant 1.024000e+03 : f32
//       CHECK:   arith.addf
//       CHECK:   arith.constant 6.400000e+01 : f32
//       CHECK:   arith.addf
//       CHECK:   %[[C256:.+]] = arith.constant 256 : index
//       CHECK:   arith.muli %[[SLOT]], %[[C256]]
//       CHECK:   gptq_nvvm.pointer %[[RING]]
//       CHECK:   arith.constant 4611686293305360384 : i64
//       CHECK:   arith.ori %{{.+}}, %{{.+}} : i64
// CHECK-COUNT-2: vector.load %[[W]]{{.*}} vector<4xi32>
//   CHECK-NOT:   has_side_effects
//       CHECK:   llvm.inline_asm {{.*}}"lop3.b32 $0, $1, 0xf000f, 0x64006400, 0xEA;", "=r,r"
//   CHECK-NOT:   has_side_effects
//       CHECK:   llvm.inline_asm {{.*}}"lop3.b32 $0, $1, 0xf000f0, 0x54005400, 0xEA;", "=r,r"
//   CHECK-NOT:   arith.andi
// CHECK-COUNT-8: arith.subf
//       CHECK:   llvm.inline_asm has_side_effects {{.*}}"wgmma.fence.sync.aligned;", "=r,{{.*}},0,1,
//       CHECK:   gptq_nvvm.warpgroup_mma f16 %{{.+}} by %{{.+}}, %{{.+}}, %{{.+}}, %{{.+}} -> f32, f32, f32, f32, f32, f32, f32, f32
//       CHECK:   arith.constant 2 : i64
//       CHECK:   gptq_nvvm.warpgroup_mma f16 {{.*}} acc
// CHECK-COUNT-2: gptq_nvvm.warpgroup_mma f16 {{.*}} acc
//       CHECK:   nvvm.wgmma.commit.group.sync.aligned
//   CHECK-NOT:   vector.load %[[W]]
//       CHECK:   "wgmma.fence.sync.aligned;", "=r,
//       CHECK:   arith.constant 128 : i64
// CHECK-COUNT-4: gptq_nvvm.warpgroup_mma f16 {{.*}} acc
//       CHECK:   nvvm.wgmma.commit.group.sync.aligned
//       CHECK:   llvm.inline_asm has_side_effects {{.*}}"wgmma.wait_group.sync.aligned 0;", "=f,
//       CHECK:   vector.insert
func.func @from_zero(%ring: memref<4x16x128xf16, #gpu.address_space<workgroup>>, %w: memref<4x2x128xi32, #gpu.address_space<workgroup>>, %slot: index, %panel: index) -> vector<4x2xf32> {
  %i = arith.constant 0 : index
  %acc = arith.constant dense<0.0> : vector<4x2xf32>
  %z = arith.constant dense<8.0> : vector<2xf32>
  %x = memref.subview %ring[%slot, 0, 0] [1, 16, 128] [1, 1, 1] : memref<4x16x128xf16, #gpu.address_space<workgroup>> to memref<16x128xf16, strided<[128, 1], offset: ?>, #gpu.address_space<workgroup>>
  %0 = gptq.group_dot %x[%i, %i], %w[%panel, %i] acc %acc zero %z {columns = array<i64: 0>, depth = 128 : i64, layout = #layout, gptq.image, plan = #plan} : memref<16x128xf16, strided<[128, 1], offset: ?>, #gpu.address_space<workgroup>>, memref<4x2x128xi32, #gpu.address_space<workgroup>>, vector<4x2xf32> zero vector<2xf32>
  return %0 : vector<4x2xf32>
}

// Sums that were there before pass the fence, too.
// CHECK-LABEL: func @from_sums
//       CHECK:   "wgmma.fence.sync.aligned;", "=r,{{.*}}=f,
//       CHECK:   gptq_nvvm.warpgroup_mma f16 {{.*}} acc
func.func @from_sums(%x: memref<16x64xf16, #gpu.address_space<workgroup>>, %w: memref<4x1x128xi32, #gpu.address_space<workgroup>>, %panel: index, %acc: vector<4x2xf32>) -> vector<4x2xf32> {
  %i = arith.constant 0 : index
  %z = arith.constant dense<8.0> : vector<2xf32>
  %0 = gptq.group_dot %x[%i, %i], %w[%panel, %i] acc %acc zero %z {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, gptq.image, plan = #plan} : memref<16x64xf16, #gpu.address_space<workgroup>>, memref<4x1x128xi32, #gpu.address_space<workgroup>>, vector<4x2xf32> zero vector<2xf32>
  return %0 : vector<4x2xf32>
}

// The unit does not stop between products whose sums only the next one wants: the first place is given back when the
// second product's first steps are under way, and all have ended where the last is read.
// CHECK-LABEL: func @continued
// CHECK-COUNT-4: gptq_nvvm.warpgroup_mma
//       CHECK:   nvvm.wgmma.commit.group.sync.aligned
//       CHECK:   nvvm.wgmma.wait.group.sync.aligned 1
//   CHECK-NOT:   wait_group
//   CHECK-NOT:   nvvm.mbarrier.arrive
// CHECK-COUNT-4: gptq_nvvm.warpgroup_mma {{.*}} acc
//       CHECK:   nvvm.wgmma.commit.group.sync.aligned
//       CHECK:   nvvm.wgmma.wait.group.sync.aligned 1
//       CHECK:   nvvm.mbarrier.arrive
//       CHECK:   "wgmma.wait_group.sync.aligned 0;"
func.func @continued(%x: memref<16x64xf16, #gpu.address_space<workgroup>>, %w: memref<4x1x128xi32, #gpu.address_space<workgroup>>, %panel: index, %acc: vector<4x2xf32>, %empty: !llvm.ptr<3>) -> vector<4x2xf32> {
  %i = arith.constant 0 : index
  %z = arith.constant dense<8.0> : vector<2xf32>
  %0 = gptq.group_dot %x[%i, %i], %w[%panel, %i] acc %acc zero %z {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, gptq.image, plan = #plan} : memref<16x64xf16, #gpu.address_space<workgroup>>, memref<4x1x128xi32, #gpu.address_space<workgroup>>, vector<4x2xf32> zero vector<2xf32>
  %token = nvvm.mbarrier.arrive %empty : !llvm.ptr<3> -> i64
  %1 = gptq.group_dot %x[%i, %i], %w[%panel, %i] acc %0 zero %z {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, gptq.image, plan = #plan} : memref<16x64xf16, #gpu.address_space<workgroup>>, memref<4x1x128xi32, #gpu.address_space<workgroup>>, vector<4x2xf32> zero vector<2xf32>
  return %1 : vector<4x2xf32>
}

// Weights that are ahead are waited for, loaded and unpacked while the unit multiplies what is in front, all of them; only then
// the sums in front are waited for and used, and their place is given back.
// CHECK-LABEL: func @ahead
//  CHECK-SAME:   %[[FRONT:[^:]+]]: memref<4x1x128xi32, #gpu.address_space<workgroup>>, %[[NEXT:[^:]+]]: memref
// CHECK-COUNT-4: gptq_nvvm.warpgroup_mma
//       CHECK:   nvvm.wgmma.commit.group.sync.aligned
//   CHECK-NOT:   wait_group
//       CHECK:   nvvm.mbarrier.try_wait.parity
//       CHECK:   vector.load %[[NEXT]]
// CHECK-COUNT-16: arith.subf
//   CHECK-NOT:   gptq_nvvm.warpgroup_mma
//       CHECK:   "wgmma.wait_group.sync.aligned 0;"
//       CHECK:   arith.addf {{.*}} vector<4x2xf32>
//       CHECK:   nvvm.mbarrier.arrive
//   CHECK-NOT:   vector.load
//       CHECK:   "wgmma.fence.sync.aligned;"
// CHECK-COUNT-4: gptq_nvvm.warpgroup_mma
//       CHECK:   "wgmma.wait_group.sync.aligned 0;"
func.func @ahead(%x: memref<16x64xf16, #gpu.address_space<workgroup>>, %w: memref<4x1x128xi32, #gpu.address_space<workgroup>>, %v: memref<4x1x128xi32, #gpu.address_space<workgroup>>, %panel: index, %sums: vector<4x2xf32>, %empty: !llvm.ptr<3>, %full: !llvm.ptr<3>, %parity: i32) -> vector<4x2xf32> {
  %i = arith.constant 0 : index
  %zero = arith.constant dense<0.0> : vector<4x2xf32>
  %0 = gptq.group_dot %x[%i, %i], %w[%panel, %i] acc %zero {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, gptq.image, plan = #plan} : memref<16x64xf16, #gpu.address_space<workgroup>>, memref<4x1x128xi32, #gpu.address_space<workgroup>>, vector<4x2xf32>
  %1 = arith.addf %sums, %0 : vector<4x2xf32>
  %token = nvvm.mbarrier.arrive %empty : !llvm.ptr<3> -> i64
  %ticks = arith.constant 1 : i32
  nvvm.mbarrier.try_wait.parity %full, %parity, %ticks : !llvm.ptr<3>, i32, i32
  %2 = gptq.group_dot %x[%i, %i], %v[%panel, %i] acc %zero {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, gptq.ahead, gptq.image, plan = #plan} : memref<16x64xf16, #gpu.address_space<workgroup>>, memref<4x1x128xi32, #gpu.address_space<workgroup>>, vector<4x2xf32>
  %3 = arith.addf %1, %2 : vector<4x2xf32>
  return %3 : vector<4x2xf32>
}

// What is no image is left to gptq-nvvm-lower-group-dot.
// CHECK-LABEL: func @in_place
//       CHECK:   gptq.group_dot
func.func @in_place(%x: memref<16x64xf16>, %w: memref<4x1x128xi32>, %panel: index, %acc: vector<4x2xf32>) -> vector<4x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%panel, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #plan} : memref<16x64xf16>, memref<4x1x128xi32>, vector<4x2xf32>
  return %0 : vector<4x2xf32>
}

// -----
#plan = #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", tileM = 16, tileN = 64, tileK = 0, rows = 16, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "accumulator", zero = "weight", threads = 128, stepK = 128, stages = 4>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
// Without a zero point, too, what unpacking adds is subtracted from codes.
// CHECK-LABEL: func @what_is_added_is_subtracted
//       CHECK:   arith.subf {{.*}} : vector<2xf16>
//       CHECK:   gptq_nvvm.warpgroup_mma
func.func @what_is_added_is_subtracted(%x: memref<16x64xf16, #gpu.address_space<workgroup>>, %w: memref<4x1x128xi32, #gpu.address_space<workgroup>>, %panel: index, %acc: vector<4x2xf32>) -> vector<4x2xf32> {
  %i = arith.constant 0 : index
  %0 = gptq.group_dot %x[%i, %i], %w[%panel, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, gptq.image, plan = #plan} : memref<16x64xf16, #gpu.address_space<workgroup>>, memref<4x1x128xi32, #gpu.address_space<workgroup>>, vector<4x2xf32>
  return %0 : vector<4x2xf32>
}

// -----
#plan = #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", tileM = 16, tileN = 64, tileK = 0, rows = 16, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "accumulator", zero = "weight", threads = 128, stepK = 128, stages = 4>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
func.func @images_hold_the_plans_rows(%x: memref<8x64xf16, #gpu.address_space<workgroup>>, %w: memref<4x1x128xi32, #gpu.address_space<workgroup>>, %panel: index, %acc: vector<4x2xf32>, %z: vector<2xf32>) -> vector<4x2xf32> {
  %i = arith.constant 0 : index
  // expected-error @+1 {{expects an image of 16 rows and 64 columns}}
  %0 = gptq.group_dot %x[%i, %i], %w[%panel, %i] acc %acc zero %z {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, gptq.image, plan = #plan} : memref<8x64xf16, #gpu.address_space<workgroup>>, memref<4x1x128xi32, #gpu.address_space<workgroup>>, vector<4x2xf32> zero vector<2xf32>
  return %0 : vector<4x2xf32>
}

// -----
#plan = #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", tileM = 16, tileN = 64, tileK = 0, rows = 16, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "accumulator", zero = "weight", threads = 128, stepK = 128, stages = 4>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
func.func @zero_points_that_follow_from_the_front(%x: memref<16x64xf16, #gpu.address_space<workgroup>>, %w: memref<4x1x128xi32, #gpu.address_space<workgroup>>, %panel: index) -> vector<4x2xf32> {
  %i = arith.constant 0 : index
  %zero = arith.constant dense<0.0> : vector<4x2xf32>
  %0 = gptq.group_dot %x[%i, %i], %w[%panel, %i] acc %zero {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, gptq.image, plan = #plan} : memref<16x64xf16, #gpu.address_space<workgroup>>, memref<4x1x128xi32, #gpu.address_space<workgroup>>, vector<4x2xf32>
  %z = vector.extract %0[0] : vector<2xf32> from vector<4x2xf32>
  // expected-error @+1 {{expects weights that are there before the product in front ends}}
  %1 = gptq.group_dot %x[%i, %i], %w[%panel, %i] acc %zero zero %z {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, gptq.ahead, gptq.image, plan = #plan} : memref<16x64xf16, #gpu.address_space<workgroup>>, memref<4x1x128xi32, #gpu.address_space<workgroup>>, vector<4x2xf32> zero vector<2xf32>
  return %1 : vector<4x2xf32>
}
