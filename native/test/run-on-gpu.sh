#!/bin/sh
# The suites and the copy rates of the native core on a real GPU: sh run.sh [MIB=1024]. Needs nothing but the GPU's driver.
# Ends with 0 when every suite passed on cuda and d3d12 and the rates are good, with 1 otherwise.
here=$(cd "$(dirname "$0")" && pwd)
LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
if [ -z "${VK_DRIVER_FILES:-}" ]; then
  # Where a container has the driver, its description may lie outside the loader's folders.
  for file in /etc/vulkan/icd.d/nvidia_icd.json /usr/share/vulkan/icd.d/nvidia_icd.json /usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json; do
    if [ -f "$file" ]; then VK_DRIVER_FILES=$file VK_ICD_FILENAMES=$file && export VK_DRIVER_FILES VK_ICD_FILENAMES && break; fi
  done
fi
failed=0
check() {
  echo "== $*"
  "$here/bin/$@" || { echo "$* ended with $?"; failed=1; }
}
for backend in cuda d3d12; do
  check native_test $backend
  check native_bench $backend "${1:-1024}"
done
[ $failed = 0 ] && echo "all good on the GPU" || echo "NOT all good on the GPU"
exit $failed
