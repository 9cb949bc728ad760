// RUN: gptq-opt %s -pass-pipeline="builtin.module(gptq-nvvm)" | FileCheck %s
// RUN: gptq-opt %s -pass-pipeline="builtin.module(gptq-nvvm{target=sm_75 overlap=false prefetch=false buffer-partials=false})" | FileCheck %s --check-prefix=SM75
// Passes before planning do not know the target.
// RUN: gptq-opt %s -pass-pipeline="builtin.module(gptq-to-normalized{target=x86-64-v3})" -o %t.cpu
// RUN: gptq-opt %s -pass-pipeline="builtin.module(gptq-to-normalized{target=sm_90a})" -o %t.nvvm
// RUN: cmp %t.cpu %t.nvvm

// From there every target has instructions of its own: what a module becomes is assembled by LLVM, and looked at here.
// RUN: gptq-translate --emit-kernel 64,256,4,128 -o %t.layer.mlir
// RUN: gptq-compile %t.layer.mlir --quiet --target=nvvm:sm_90a -o %t.gptqm --dump-ir %t.dump
// RUN: FileCheck %s --check-prefix=PTX --input-file %t.dump/8-kernels.s
// RUN: gptq-compile %t.layer.mlir --quiet --target=nvvm:sm_90a --load-bits=32 -o %t.gptqm --dump-ir %t.narrow
// RUN: FileCheck %s --check-prefix=NARROW --input-file %t.narrow/8-kernels.s
// RUN: gptq-compile %t.layer.mlir --quiet --target=nvvm:sm_120a --activations=bf16 -o %t.gptqm --dump-ir %t.bf16
// RUN: FileCheck %s --check-prefix=BF16 --input-file %t.bf16/8-kernels.s

//   PTX-DAG: .target sm_90a
//     PTX: .visible .entry dequant_matmul_0_m1(
//     PTX: .maxntid
//     PTX: griddepcontrol.launch_dependents
//     PTX: ld.global.L1::no_allocate.L2::256B.v4.b32
//     PTX: griddepcontrol.wait
//     PTX: lop3.b32 {{.*}}, 0xf000f, 0x64006400, 0xEA;
//     PTX: lop3.b32 {{.*}}, 0xf000f0, 0x54005400, 0xEA;
//     PTX: mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
//     PTX: st.shared
//     PTX: bar.sync
//     PTX: ld.shared
// PTX-NOT: .local
// NARROW-NOT: L1::no_allocate.L2::256B.v4
//     NARROW: ld.global.L1::no_allocate.L2::256B.b32
// BF16: mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32

gptq.weight @q : tensor<172x40xi4> = #gptq.codes<#gptq.data<"m.safetensors", "q.qweight", 0, tensor<22x40xi32>>, bits = 4, packing = rows>
gptq.weight @s : tensor<6x40xbf16> = #gptq.data<"m.safetensors", "q.scales", 5632, tensor<6x40xbf16>>
gptq.weight @g : tensor<172xi32> = #gptq.data<"m.safetensors", "q.g_idx", 7000, tensor<172xi32>>

// CHECK-LABEL: func.func @layer
//       CHECK:   gptq.dispatch "stage"
//       CHECK:   gptq.dispatch "layer" [@kernels::@dequant_matmul_{{[0-9]+}}_m1, @kernels::@dequant_matmul_{{[0-9]+}}_m8, @kernels::@dequant_matmul_{{[0-9]+}}_m16, @kernels::@dequant_matmul_{{[0-9]+}}_m32, @kernels::@dequant_matmul_{{[0-9]+}}_m512]
//       CHECK: module @kernels
//       CHECK:   llvm.func @dequant_matmul{{.*}} attributes {gptq.grid = {{.*}}, gptq.kernel, {{.*}}gptq.overlap, gptq.scratch_bytes = {{[0-9]+}} : i64, gptq.threads = {{[0-9]+}} : i64, nvvm.kernel, nvvm.maxntid
//   CHECK-NOT:   builtin.unrealized_conversion_cast
//       CHECK:   nvvm.mma.sync {{.*}}#nvvm.shape<m = 16, n = 8, k = 16>
// SM75-LABEL: module @kernels
//   SM75-NOT:   gptq.overlap
//       SM75:   nvvm.mma.sync {{.*}}#nvvm.shape<m = 16, n = 8, k = 8>
//       SM75:   llvm.atomicrmw fadd
func.func @layer(%x: tensor<?x172xf32> {gptq.name = "x"}) -> (tensor<?x40xf32> {gptq.name = "y"}) attributes {gptq.max_m = 512 : i64} {
  %c0 = arith.constant 0 : index
  %m = tensor.dim %x, %c0 : tensor<?x172xf32>
  %e = tensor.empty(%m) : tensor<?x40xf32>
  %q = gptq.load_weight @q : tensor<172x40xi4>
  %s = gptq.load_weight @s : tensor<6x40xbf16>
  %g = gptq.load_weight @g : tensor<172xi32>
  %y = gptq.dequant_matmul ins(%x, %q, %s g_idx %g : tensor<?x172xf32>, tensor<172x40xi4>, tensor<6x40xbf16> g_idx tensor<172xi32>)
      outs(%e : tensor<?x40xf32>) {bits = 4, group_size = 32, zero_point = 8, gptq.label = "layer"} -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>
}
