// RUN: gptq-opt %s -split-input-file -pass-pipeline="builtin.module(func.func(gptq-nvvm-form-rings))" | FileCheck %s
// RUN: gptq-opt %s -split-input-file -pass-pipeline="builtin.module(func.func(gptq-nvvm-form-rings))" --remarks-filter-missed=gptq -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

#plan = #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", tileM = 16, tileN = 64, tileK = 0, rows = 16, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "weight", zero = "weight", threads = 256, stepK = 64, stages = 4>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">

// Two groups of four warps take parts of 64 rows in turn. Four places for them: 16 rows of activations, a block of codes
// and a row of scales for each of four panels; a barrier for each that counts the threads that copy activations, one that
// counts those that copy weights and those that order activations, and one that counts the four warps of a turn.
// CHECK-LABEL: func @turns
//  CHECK-SAME:   gptq.threads = 384
//   CHECK-DAG:   %[[X:.+]] = memref.alloc() {alignment = 1024 : i64} : memref<4x16x64xf16, #gpu.address_space<workgroup>>
//   CHECK-DAG:   %[[W:.+]] = memref.alloc() {alignment = 16 : i64} : memref<4x4x1x128xi32, #gpu.address_space<workgroup>>
//   CHECK-DAG:   %[[S:.+]] = memref.alloc() {alignment = 16 : i64} : memref<4x4x1x16xf16, #gpu.address_space<workgroup>>
//       CHECK:   %[[LANDED:.+]] = memref.alloc() {alignment = 8 : i64} : memref<4xi64
//       CHECK:   %[[FULL:.+]] = memref.alloc() {alignment = 8 : i64} : memref<4xi64
//       CHECK:   %[[EMPTY:.+]] = memref.alloc() {alignment = 8 : i64} : memref<4xi64
//       CHECK:   scf.if
//       CHECK:     gptq_nvvm.pointer %[[LANDED]]
//       CHECK:     %[[C32:.+]] = arith.constant 32 : i32
//       CHECK:     nvvm.mbarrier.init %{{.+}}, %[[C32]]
//       CHECK:     gptq_nvvm.pointer %[[FULL]]
//       CHECK:     %[[C96:.+]] = arith.constant 96 : i32
//       CHECK:     nvvm.mbarrier.init %{{.+}}, %[[C96]]
//       CHECK:     gptq_nvvm.pointer %[[EMPTY]]
//       CHECK:     %[[ALL:.+]] = arith.constant 128 : i32
//       CHECK:     nvvm.mbarrier.init %{{.+}}, %[[ALL]]
//       CHECK:     nvvm.fence.mbarrier.init
//       CHECK:   gpu.barrier
//       CHECK:   %[[MULTIPLIES:.+]] = arith.cmpi slt, %{{.+}}, %c256
// Registers go from those that feed to those that multiply: of 168 for each of 384 threads the 128 that feed keep 32.
//       CHECK:   scf.if %[[MULTIPLIES]] {
//  CHECK-NEXT:     nvvm.setmaxregister increase 232

// A round is two parts for each turn; nine parts are two rounds and one more, of the first turn.
//       CHECK:     scf.for %{{.+}} = %c0{{.*}} to %c2{{.*}} step %c1
// CHECK-COUNT-2:     nvvm.mbarrier.try_wait.parity
//       CHECK:     scf.if
//       CHECK:       nvvm.mbarrier.try_wait.parity
//       CHECK:       %[[IMAGE:.+]] = memref.subview %[[X]]
//       CHECK:       %[[SCALES:.+]] = memref.subview %[[S]]
//       CHECK:       %[[CODES:.+]] = memref.subview %[[W]]
//       CHECK:       vector.load %[[SCALES]][
//       CHECK:       gptq.group_dot %[[IMAGE]][%c0{{.*}}, %c0{{.*}}], %[[CODES]][%{{.+}}, %c0{{.*}}] {{.*}}gptq.image
// Every thread says that it has read.
//   CHECK-NOT:       scf.if
//       CHECK:       nvvm.mbarrier.arrive
//       CHECK:     nvvm.barrier id = %{{.+}} number_of_threads = %{{.+}}
//       CHECK:     vector.store
//       CHECK:   } else {
//  CHECK-NEXT:     nvvm.setmaxregister decrease 32

// One warp copies codes and scales, 16 bytes a thread: scales of four panels are 8 such pieces, codes 128.
//       CHECK:     scf.if
//       CHECK:       scf.for %{{.+}} = %c0{{.*}} to %c9
//       CHECK:         gptq_nvvm.pointer %[[EMPTY]]
//       CHECK:         nvvm.mbarrier.try_wait.parity
//       CHECK:         gptq_nvvm.pointer %arg2
//       CHECK:         nvvm.cp.async.shared.global %{{.+}}, %{{.+}}, 16, cache = cg
// CHECK-COUNT-4:         nvvm.cp.async.shared.global %{{.+}}, %{{.+}}, 16, cache = cg
//   CHECK-NOT:         nvvm.cp.async.shared.global
//       CHECK:         nvvm.cp.async.mbarrier.arrive %{{.+}} {noinc = true}

// The next copies activations as they lie, 16 bytes a thread, four rows of one line at once: where from and where to is known
// before the loop.
//       CHECK:     } else {
//       CHECK:       scf.if
//       CHECK:         arith.minui
//       CHECK:         arith.xori
//       CHECK:         scf.for %{{.+}} = %c0{{.*}} to %c9
//       CHECK:           gptq_nvvm.pointer %[[EMPTY]]
// CHECK-COUNT-4:           nvvm.cp.async.shared.global %{{.+}}, %{{.+}}, 16, cache = cg
//   CHECK-NOT:           nvvm.cp.async.shared.global
//       CHECK:           gptq_nvvm.pointer %[[LANDED]]
//       CHECK:           nvvm.cp.async.mbarrier.arrive %{{.+}} {noinc = true}

// The last two order them where they are, for the first phase of a place on: each has half of a line, of eight rows at once.
// What a warp reads all of its threads have read before any of them writes; the unit reads another way than threads write.
//       CHECK:       } else {
//       CHECK:         %[[FIRST:.+]] = arith.constant 0 : i32
//       CHECK:         scf.for %{{.+}} = %c0{{.*}} to %c9{{.*}} iter_args(%{{.+}} = %{{.+}}, %{{.+}} = %[[FIRST]])
//       CHECK:           gptq_nvvm.pointer %[[LANDED]]
//       CHECK:           nvvm.mbarrier.try_wait.parity
// CHECK-COUNT-2:           llvm.load %{{.+}} {alignment = 16 : i64} : !llvm.ptr<3> -> vector<4xi32>
//       CHECK:           nvvm.bar.warp.sync
// CHECK-COUNT-2:           nvvm.stmatrix %{{.+}}, %{{.+}}, %{{.+}}, %{{.+}}, %{{.+}} {eltType = #nvvm.ld_st_matrix_elt_type<b16>, layout = #nvvm.mma_layout<row>, shape = #nvvm.ld_st_matrix_shape<m = 8, n = 8>}
//       CHECK:           nvvm.fence.proxy {kind = #nvvm.proxy_kind<async.shared>
//       CHECK:           gptq_nvvm.pointer %[[FULL]]
//       CHECK:           nvvm.mbarrier.arrive
func.func @turns(%x: memref<?x576xf16>, %w: memref<4x9x128xi32> {gptq.weight}, %s: memref<4x9x16xf16> {gptq.weight}, %y: memref<2x2xf32>, %turn: index, %panel: index) attributes {gptq.kernel, gptq.threads = 256 : i64} {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %c9 = arith.constant 9 : index
  %c64 = arith.constant 64 : index
  %zero = arith.constant dense<0.0> : vector<4x2xf32>
  %z = arith.constant dense<8.0> : vector<2xf32>
  %sums = scf.for %i = %turn to %c9 step %c2 iter_args(%acc = %zero) -> (vector<4x2xf32>) {
    %k = arith.muli %i, %c64 : index
    %scale = vector.load %s[%panel, %i, %c0] : memref<4x9x16xf16>, vector<2xf16>
    %wide = arith.extf %scale : vector<2xf16> to vector<2xf32>
    %next = gptq.group_dot %x[%c0, %k], %w[%panel, %i] acc %acc scale %wide zero %z {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #plan} : memref<?x576xf16>, memref<4x9x128xi32>, vector<4x2xf32> scale vector<2xf32> zero vector<2xf32>
    scf.yield %next : vector<4x2xf32>
  } {gptq.stages = 4 : i64}
  gpu.barrier
  %row = vector.extract %sums[0] : vector<2xf32> from vector<4x2xf32>
  vector.store %row, %y[%c0, %c0] : memref<2x2xf32>, vector<2xf32>
  return
}

// -----

// Scales that come from elsewhere than a weight cannot be copied ahead: the loop stays.
#plan = #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", tileM = 16, tileN = 64, tileK = 0, rows = 16, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "weight", zero = "weight", threads = 128, stepK = 64, stages = 4>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
// CHECK-LABEL: func @computed_scales
//  CHECK-SAME:   gptq.threads = 128
//   CHECK-NOT:   nvvm
//       CHECK:   gptq.stages = 4
// REMARK: FormRings {{.*}}no ring: expects loads of one row of a weight
func.func @computed_scales(%x: memref<?x512xf16>, %w: memref<4x8x128xi32> {gptq.weight}, %s: memref<4x8x16xf16>, %panel: index) -> vector<4x2xf32> attributes {gptq.kernel, gptq.threads = 128 : i64} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c8 = arith.constant 8 : index
  %c64 = arith.constant 64 : index
  %zero = arith.constant dense<0.0> : vector<4x2xf32>
  %sums = scf.for %i = %c0 to %c8 step %c1 iter_args(%acc = %zero) -> (vector<4x2xf32>) {
    %k = arith.muli %i, %c64 : index
    %scale = vector.load %s[%panel, %i, %c0] : memref<4x8x16xf16>, vector<2xf16>
    %wide = arith.extf %scale : vector<2xf16> to vector<2xf32>
    %next = gptq.group_dot %x[%c0, %k], %w[%panel, %i] acc %acc scale %wide {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #plan} : memref<?x512xf16>, memref<4x8x128xi32>, vector<4x2xf32> scale vector<2xf32>
    scf.yield %next : vector<4x2xf32>
  } {gptq.stages = 4 : i64}
  return %sums : vector<4x2xf32>
}

// -----

// What the threads that multiply keep in workgroup memory when they are through lies where the ring was.
#plan = #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", tileM = 16, tileN = 64, tileK = 0, rows = 16, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "weight", zero = "weight", threads = 128, stepK = 64, stages = 4>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
// CHECK-LABEL: func @sums
//       CHECK:   scf.for
//       CHECK:   nvvm.barrier id = %{{.+}} number_of_threads
//  CHECK-NEXT:   memref.alloc() {gptq.after_others} : memref<128x4x2xf32
//       CHECK:   vector.store
//       CHECK:   nvvm.barrier
func.func @sums(%x: memref<?x512xf16>, %w: memref<4x8x128xi32> {gptq.weight}, %y: memref<4x2xf32>, %panel: index, %thread: index, %other: index) attributes {gptq.kernel, gptq.threads = 128 : i64} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c8 = arith.constant 8 : index
  %c64 = arith.constant 64 : index
  %zero = arith.constant dense<0.0> : vector<4x2xf32>
  %sums = scf.for %i = %c0 to %c8 step %c1 iter_args(%acc = %zero) -> (vector<4x2xf32>) {
    %k = arith.muli %i, %c64 : index
    %next = gptq.group_dot %x[%c0, %k], %w[%panel, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #plan} : memref<?x512xf16>, memref<4x8x128xi32>, vector<4x2xf32>
    scf.yield %next : vector<4x2xf32>
  } {gptq.stages = 4 : i64}
  %all = memref.alloc() : memref<128x4x2xf32, #gpu.address_space<workgroup>>
  vector.store %sums, %all[%thread, %c0, %c0] : memref<128x4x2xf32, #gpu.address_space<workgroup>>, vector<4x2xf32>
  gpu.barrier
  %sum = vector.load %all[%other, %c0, %c0] : memref<128x4x2xf32, #gpu.address_space<workgroup>>, vector<4x2xf32>
  vector.store %sum, %y[%c0, %c0] : memref<4x2xf32>, vector<4x2xf32>
  return
}

// -----

// Rows that do not all start at multiples of 16 bytes cannot be copied so.
#plan = #gptq.plan<mMin = 9, mMax = 16, unit = "wgmma_m64k16", tileM = 16, tileN = 64, tileK = 0, rows = 16, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "weight", zero = "weight", threads = 128, stepK = 64, stages = 4>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
// CHECK-LABEL: func @odd_rows
//   CHECK-NOT:   nvvm
//       CHECK:   gptq.stages = 4
// REMARK: FormRings {{.*}}no ring: expects rows of activations at multiples of 16 bytes, but found 1032 from one to the next
func.func @odd_rows(%x: memref<?x516xf16>, %w: memref<4x8x128xi32> {gptq.weight}, %panel: index) -> vector<4x2xf32> attributes {gptq.kernel, gptq.threads = 128 : i64} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c8 = arith.constant 8 : index
  %c64 = arith.constant 64 : index
  %zero = arith.constant dense<0.0> : vector<4x2xf32>
  %sums = scf.for %i = %c0 to %c8 step %c1 iter_args(%acc = %zero) -> (vector<4x2xf32>) {
    %k = arith.muli %i, %c64 : index
    %next = gptq.group_dot %x[%c0, %k], %w[%panel, %i] acc %acc {columns = array<i64: 0>, depth = 64 : i64, layout = #layout, plan = #plan} : memref<?x516xf16>, memref<4x8x128xi32>, vector<4x2xf32>
    scf.yield %next : vector<4x2xf32>
  } {gptq.stages = 4 : i64}
  return %sums : vector<4x2xf32>
}

// -----

// While eight warps multiply 64 rows, eight feed them: two copy activations, each half of the rows, and four order them, each half
// of the pieces of half of the lines; two have nothing to do. Rounds are of four parts, and but for the first the weights of each
// are unpacked while the part in front is multiplied: rows of a part are two lines long, 128 lines.
#plan = #gptq.plan<mMin = 33, mMax = 64, unit = "wgmma_m64k16", tileM = 64, tileN = 128, tileK = 0, rows = 64, columns = 16, lanes = 32, path = "ring", partials = "shared", scale = "accumulator", zero = "weight", threads = 256, stepK = 128, stages = 8>
#layout = #gptq.layout<bits = 4, blockN = 16, blockK = 64, order = "b0 b1 n3 k1 k0 k2 k5 k3 k4 n0 n1 n2">
// CHECK-LABEL: func @many_rows
//  CHECK-SAME:   gptq.threads = 512
//       CHECK:   arith.constant 64 : i32
//  CHECK-NEXT:   nvvm.mbarrier.init
//       CHECK:   arith.constant 160 : i32
//  CHECK-NEXT:   nvvm.mbarrier.init
//       CHECK:   arith.constant 256 : i32
//  CHECK-NEXT:   nvvm.mbarrier.init
//       CHECK:   nvvm.setmaxregister increase 208
//       CHECK:   scf.for %{{.+}} = %c0{{.*}} to %c2{{.*}} step %c1
//       CHECK:     gptq.group_dot
//   CHECK-NOT:     gptq.ahead
// CHECK-COUNT-3:   gptq.group_dot {{.*}} gptq.ahead
//   CHECK-NOT:     gptq.group_dot
//       CHECK:   nvvm.setmaxregister decrease 48
//       CHECK:   %[[C1:.+]] = arith.constant 1 : index
//       CHECK:   scf.if
//       CHECK:   } else {
//       CHECK:     %[[C3:.+]] = arith.constant 3 : index
//       CHECK:     arith.cmpi slt, %[[WARP:.+]], %[[C3]]
//       CHECK:     scf.if
//       CHECK:       scf.for
// CHECK-COUNT-16:      nvvm.cp.async.shared.global %{{.+}}, %{{.+}}, 16, cache = cg
//   CHECK-NOT:         nvvm.cp.async.shared.global
//       CHECK:     } else {
//       CHECK:       %[[C7:.+]] = arith.constant 7 : index
//       CHECK:       arith.cmpi slt, %[[WARP]], %[[C7]]
//       CHECK:       scf.if
//       CHECK:         scf.for
// CHECK-COUNT-8:         llvm.load
//   CHECK-NOT:           llvm.load
//       CHECK:           nvvm.bar.warp.sync
// CHECK-COUNT-8:         nvvm.stmatrix
//   CHECK-NOT:           nvvm.stmatrix
func.func @many_rows(%x: memref<?x1024xf16>, %w: memref<8x16x128xi32> {gptq.weight}, %y: memref<16x2xf32>, %panel: index) attributes {gptq.kernel, gptq.threads = 256 : i64} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %c8 = arith.constant 8 : index
  %c128 = arith.constant 128 : index
  %zero = arith.constant dense<0.0> : vector<16x2xf32>
  %sums = scf.for %i = %c0 to %c8 step %c1 iter_args(%acc = %zero) -> (vector<16x2xf32>) {
    %k = arith.muli %i, %c128 : index
    %b = arith.muli %i, %c2 : index
    %own = gptq.group_dot %x[%c0, %k], %w[%panel, %b] acc %zero {columns = array<i64: 0>, depth = 128 : i64, layout = #layout, plan = #plan} : memref<?x1024xf16>, memref<8x16x128xi32>, vector<16x2xf32>
    %next = arith.addf %acc, %own : vector<16x2xf32>
    scf.yield %next : vector<16x2xf32>
  } {gptq.stages = 8 : i64}
  vector.store %sums, %y[%c0, %c0] : memref<16x2xf32>, vector<16x2xf32>
  return
}
