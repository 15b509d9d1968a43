/** The environment of the Python child: an allow-list, so that no key and no Redis address reaches it. */
import { userInfo } from 'node:os'
import { uid } from '../../../host/own-folder.mjs'

const allowed = [
  'PATH',
  'LANG',
  'LC_ALL',
  'LC_CTYPE',
  'TZ',
  'TMPDIR',
  'LD_LIBRARY_PATH',
  'CUDA_HOME',
  'CUDA_VISIBLE_DEVICES',
  'CUDA_DEVICE_ORDER',
  'NVIDIA_VISIBLE_DEVICES',
  'NVIDIA_DRIVER_CAPABILITIES',
  'HIP_VISIBLE_DEVICES',
  'ROCR_VISIBLE_DEVICES',
  'SystemRoot',
]

/**
 * The child's whole environment: the allowed variables of ours, and settings that keep its libraries offline and
 * deterministic.
 * @param home folder that is the child's HOME
 * @param pythonPath folder of the `darkroom` package
 */
export function childEnvironment(home: string, pythonPath: string, from: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const kept = allowed.flatMap((name) => (from[name] === undefined ? [] : [[name, from[name]]]))
  return {
    ...(Object.fromEntries(kept) as Record<string, string>),
    HOME: home,
    HF_HOME: home,
    // A container's user may be in no list of users: `getpass.getuser`, which torch asks, finds it here.
    USER: userName(),
    LOGNAME: userName(),
    // Nothing is imported from the folder that a script lies in or that the child is started in.
    PYTHONSAFEPATH: '1',
    PYTHONPATH: pythonPath,
    PYTHONFAULTHANDLER: '1',
    PYTHONNOUSERSITE: '1',
    PYTHONUTF8: '1',
    HF_HUB_OFFLINE: '1',
    TRANSFORMERS_OFFLINE: '1',
    HF_HUB_DISABLE_TELEMETRY: '1',
    HF_HUB_DISABLE_PROGRESS_BARS: '1',
    DIFFUSERS_DISABLE_REMOTE_CODE: 'true',
    TOKENIZERS_PARALLELISM: 'false',
    // Read when CUDA starts; deterministic matrix products need it (PyTorch notes, "Reproducibility").
    CUBLAS_WORKSPACE_CONFIG: ':4096:8',
  }
}

function userName(): string {
  try {
    return userInfo().username
  } catch {
    return `user-${uid}`
  }
}
