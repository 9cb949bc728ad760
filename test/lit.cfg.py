import os
import subprocess

import lit.formats
from lit.llvm import llvm_config

config.name = "gptq-mlir"
config.test_format = lit.formats.ShTest(not llvm_config.use_lit_shell)
config.suffixes = [".mlir", ".test"]
config.excludes = ["reference", "unit", "unittests", "e2e", "Inputs"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(config.gptq_obj_root, "test")

llvm_config.use_default_substitutions()
llvm_config.with_environment("PATH", config.llvm_tools_dir, append_path=True)
llvm_config.add_tool_substitutions(
    ["gptq-opt", "gptq-translate", "gptq-compile", "gptq-run"], [config.gptq_tools_dir, config.llvm_tools_dir])
# In front of lit's own %python, which need not have numpy.
config.substitutions.insert(0, ("%python", config.gptq_python))
config.substitutions.append(("%reference", os.path.join(config.test_source_root, "reference")))
config.substitutions.append(("%examples", os.path.join(config.gptq_src_root, "examples")))
config.substitutions.append(("%tools", config.gptq_tools_dir))
config.substitutions.append(("%scripts", os.path.join(config.gptq_src_root, "scripts")))
config.substitutions.append(("%shared_data", config.gptq_test_data))

# What some tests need and some machines lack.
if config.gptq_test_data and os.path.isdir(config.gptq_test_data):
    config.available_features.add("shared-data")
if subprocess.run([config.gptq_python, "-c", "import numpy"], stderr=subprocess.DEVNULL).returncode == 0:
    config.available_features.add("numpy")
