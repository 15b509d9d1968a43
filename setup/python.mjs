/**
 * The Python environment of the inference child: pinned by `python/requirements.lock`, in
 * `<home>/python/<hash of the lock>`, made in place because virtual environments cannot be moved. It is believed only
 * with the mark that is written last; without it, it is made anew.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { shown } from '../host/home.mjs'
import { whileHolding } from '../host/lock.mjs'
import { environmentOf, readyEnvironment } from '../host/places.mjs'
import { ask, hasNvidiaDriver, onPath } from '../host/programs.mjs'
import { pythonEnvironment, runBound } from './bound.mjs'
import { causeOf, failure, lastLines } from './failure.mjs'
import { makeRoom } from './room.mjs'

const range = { major: 3, minors: [11, 12, 13], words: 'Python 3.11, 3.12 or 3.13' }

/** PyTorch's own index of CPU builds, asked only when pip finds none by itself. */
const pytorchCpuIndex = 'https://download.pytorch.org/whl/cpu'

/** @typedef {import('../host/places.mjs').Mark} Mark */
/**
 * @typedef {import('../host/places.mjs').Environment & { cpuIndex?: string }} EnvironmentChoice `cpuIndex`: asked for
 *   torch's CPU build after pip's own
 */

/**
 * The finished environment, made when there is none. Two at a time wait for one another; one that was killed is made
 * anew.
 * @param {EnvironmentChoice} choice
 * @param {import('./say.mjs').Say} say
 * @returns {Promise<{ interpreter: string } & Mark>}
 * @throws SetupFailure
 */
export async function ensurePython(choice, say) {
  const ready = readyEnvironment(choice)
  if (ready) return ready
  const environment = environmentOf(choice)
  return whileHolding(
    dirname(environment.folder),
    basename(environment.folder),
    async () => {
      if (!readyEnvironment(choice)) await make(environment, choice, say)
      const made = readyEnvironment(choice)
      if (!made) throw failure(`${shown(environment.folder)} was made, but its interpreter cannot be run.`)
      return made
    },
    (holder) => say.line(`Another set-up${holder} is making the Python environment; waiting for it.`),
  )
}

/**
 * @param {ReturnType<typeof environmentOf>} environment
 * @param {EnvironmentChoice} choice
 * @param {import('./say.mjs').Say} say
 */
async function make(environment, choice, say) {
  const { folder, log, mark } = environment
  const { gpu = false } = choice
  const python = await findPython()
  makeRoom(dirname(folder))
  rmSync(folder, { recursive: true, force: true })
  makeRoom(folder, gpu ? 8e9 : 1.6e9)
  writeFileSync(log, '')
  const [size, time] = gpu ? ['3 GB (7 GB on disk)', 'five minutes'] : ['310 MB (1.3 GB on disk)', 'two minutes']
  say.line(
    `Fetching PyTorch and diffusers for the ${gpu ? 'GPU' : 'CPU'}: ${size} into ${shown(folder)}, ${time} on a fast line, more at home; once.`,
  )
  if (!gpu && hasNvidiaDriver()) say.line('There is an NVIDIA driver here: run this with `-- --gpu` to get the GPU build as well.')
  if (gpu && process.platform === 'linux' && !hasNvidiaDriver())
    say.line('There is no NVIDIA driver here; the GPU build needs one to draw.')
  try {
    const built = await fill(environment, python, choice, say)
    const part = `${mark}.part`
    const file = openSync(part, 'w')
    writeFileSync(file, `${JSON.stringify(built)}\n`)
    fsyncSync(file)
    closeSync(file)
    renameSync(part, mark)
  } catch (error) {
    rmSync(folder, { recursive: true, force: true })
    throw error
  }
}

/**
 * Everything but the mark.
 * @param {ReturnType<typeof environmentOf>} environment @param {{ command: string, version: string }} python
 * @param {EnvironmentChoice} choice @param {import('./say.mjs').Say} say
 * @returns {Promise<Mark>}
 */
async function fill({ folder, interpreter, log, pins }, python, choice, say) {
  const temp = join(folder, 'tmp')
  mkdirSync(temp)
  const run = (/** @type {string} */ command, /** @type {string[]} */ args) =>
    runBound(command, args, { log, env: pythonEnvironment(temp) })
  const pip = pipBy(interpreter, temp, run)
  const others = pins.filter(({ name }) => !name.startsWith('torch=='))

  await say.step(`environment of Python ${python.version}`, async () => {
    const { ok, words } = await run(python.command, ['-I', '-m', 'venv', folder])
    if (!ok) throw failure(`Python could not make an environment in ${shown(folder)}. ${causeOf(words)}It said:\n${lastLines(words)}`)
  })
  // torch first, because it may be refused.
  await say.step('torch', () => installTorch(pins, choice, pip, log))
  const installOthers = async () => {
    const { ok, words } = await pip(others)
    if (!ok) throw failed('the packages', words, log)
  }
  await say.step(`${others.length} packages`, installOthers)

  const { ok, words } = await run(interpreter, ['-I', '-c', inspect, ...others.map(({ name }) => name)])
  if (!ok) throw failure(`The environment differs from the lock file: ${lastLines(words)}`)
  /** @type {Mark} */
  const built = { ...JSON.parse(lastLines(words, 1)), python: python.version }
  if (choice.gpu && process.platform === 'linux' && built.gpu === null)
    throw failure(`pip installed torch ${built.torch}, which is not a GPU build. Point pip at an index that has one, or leave out --gpu.`)
  rmSync(temp, { recursive: true })
  return built
}

/**
 * Compares what is installed with the pins given as arguments; prints torch's build, read from its files because
 * importing takes seconds. What the mark will vouch for is on the disk before it.
 */
const inspect = `
import importlib.metadata as m, json, os, re, sys
wrong = []
for pin in sys.argv[1:]:
    name, _, version = pin.partition("==")
    try:
        found = m.version(name)
    except m.PackageNotFoundError:
        found = None
    if found != version:
        wrong.append(f"{name} is {found}, not {version}")
if wrong:
    sys.exit("; ".join(wrong))
text = next((p.locate().read_text() for p in m.files("torch") if str(p) == "torch/version.py"), "")
gpu = re.search(r"^(cuda|hip)\\b.*= '([^']+)'", text, re.M)
os.sync()
print(json.dumps({"torch": m.version("torch"), "gpu": gpu and f"{gpu[1]} {gpu[2]}"}))
`

/** @typedef {import('../host/places.mjs').Pin} Pin */
/** @typedef {(pins: Pin[], ...args: string[]) => Promise<{ ok: boolean, words: string }>} Pip */

/**
 * `pip install` of pins and nothing else: by hash, and wheels only, for whatever is built runs code of its package.
 * @param {string} interpreter
 * @param {string} folder for the list that pip reads
 * @param {(command: string, args: string[]) => Promise<{ ok: boolean, words: string }>} run
 * @returns {Pip}
 */
export function pipBy(interpreter, folder, run) {
  const quiet = ['--disable-pip-version-check', '--no-input', '--progress-bar', 'off']
  const strict = ['--require-hashes', '--only-binary', ':all:', '--no-deps']
  return (pins, ...args) => {
    const list = join(folder, 'requirements.txt')
    writeFileSync(list, pins.map(({ line }) => `${line}\n`).join(''))
    return run(interpreter, ['-I', '-u', '-m', 'pip', 'install', ...quiet, ...strict, ...args, '-r', list])
  }
}

/**
 * Installs one build of torch. For the CPU: what pip finds as `+cpu`, else the same with PyTorch's own index of CPU
 * builds, never gigabytes of CUDA unasked; macOS has one build for all.
 * @param {Pin[]} pins with both builds of torch
 * @param {Pick<EnvironmentChoice, 'gpu' | 'cpuIndex'>} choice
 * @param {Pip} pip
 * @param {string} log where all that pip says is
 * @throws SetupFailure
 */
export async function installTorch(pins, { gpu = false, cpuIndex = pytorchCpuIndex }, pip, log) {
  const isMac = process.platform === 'darwin'
  const builds = pins.filter(({ name }) => name.startsWith('torch=='))
  const plain = builds.find(({ name }) => !name.includes('+'))
  const build = gpu || isMac ? plain : builds.find(({ name }) => name.endsWith('+cpu'))
  if (!plain || !build) throw failure('The lock file names no torch, or not both of its builds.')
  // `==2.13.0` alone would be content with 2.13.0+cpu.
  const exactly = [{ ...build, line: build.line.replace('==', '===') }]
  const elsewhere = ['--retries', '1', '--timeout', '10', '--extra-index-url', cpuIndex]
  for (const args of gpu || isMac ? [[]] : [['--retries', '2'], elsewhere]) {
    const { ok, words } = await pip(exactly, ...args)
    if (ok) return
    // The second is what pip says where a constraints file names torch too.
    if (!/No matching distribution found|ResolutionImpossible/.test(words)) throw failed(build.name, words, log)
  }
  const where = gpu || isMac ? '' : `, neither by itself nor in PyTorch's own index (${cpuIndex})`
  const mirror = 'Check the network, or point pip at a mirror that has one (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL).'
  const other =
    gpu || isMac
      ? ' For another build, such as one for ROCm, make an environment of your own and name it with DARKROOM_PYTHON.'
      : ' `-- --gpu` takes the CUDA build instead, some gigabytes.'
  throw failure(
    `pip finds no ${gpu ? 'GPU' : 'CPU'} build of ${plain.name} for this Python${where}. ${mirror}${other} All it said is in ${shown(log)}.`,
  )
}

/** @param {string} what @param {string} words @param {string} log */
function failed(what, words, log) {
  const errors = words.split('\n').filter((line) => line.startsWith('ERROR:'))
  const said = errors.length > 0 ? errors.slice(-4).join('\n') : lastLines(words)
  if (/DO NOT MATCH THE HASHES/.test(words))
    return failure(
      `pip refused ${what}: a file is not the one that python/requirements.lock names by its SHA-256. Whatever serves it has changed it, or lacks the right one. It said:\n${lastLines(words, 12)}\nAll of it is in ${shown(log)}.`,
    )
  return failure(`pip could not install ${what}. ${causeOf(words)}It said:\n${said}\nAll of it is in ${shown(log)}.`)
}

/** Version, kind, width, and whether it can make environments. */
const probe = `
import importlib.util as u, struct, sys
print("%d.%d.%d" % sys.version_info[:3], sys.implementation.name, 8 * struct.calcsize("P"), bool(u.find_spec("venv") and u.find_spec("ensurepip")))
`

/**
 * A Python in the range, with venv and ensurepip; the machine's `python3` before others.
 * @returns {Promise<{ command: string, version: string }>}
 * @throws SetupFailure
 */
export async function findPython() {
  const names = ['python3', ...range.minors.toReversed().map((minor) => `python${range.major}.${minor}`), 'python']
  /** @type {Set<string>} */
  const seen = new Set()
  let bare
  for (const command of new Set(names.flatMap(onPath))) {
    const { code, out } = await ask(command, ['-I', '-c', probe], { timeoutMs: 10_000 })
    const [version = '', implementation, bits, makesEnvironments] = out.trim().split(' ')
    // A launcher, such as pyenv's, for a version that is not there.
    if (code !== 0 || bits === undefined) continue
    seen.add(`${version} (${command})`)
    const [major, minor] = version.split('.').map(Number)
    if (major !== range.major || !range.minors.includes(Number(minor)) || implementation !== 'cpython' || bits !== '64') continue
    if (makesEnvironments === 'True') return { command, version }
    bare ??= { command, version, package: `python${major}.${minor}-venv` }
  }
  if (bare) {
    const isDebian = onPath('apt-get').length > 0
    const how = isDebian
      ? `Run \`sudo apt-get install ${bare.package}\``
      : 'Install the package of your distribution that holds venv and ensurepip'
    throw failure(
      `Python ${bare.version} (${bare.command}) has no ensurepip, so it cannot make an environment. ${how}, then run this again.`,
    )
  }
  const found = seen.size > 0 ? `Found: ${[...seen].join(', ')}.` : 'There is none on PATH.'
  const how = process.platform === 'darwin' ? ' `brew install python@3.13` brings one.' : ''
  throw failure(`Darkroom needs ${range.words}. ${found}${how}`)
}
