/**
 * The Python environment of the inference child: pinned by `python/requirements.lock`, in `<home>/python/<hash of the lock>`, made in place
 * because virtual environments cannot be moved. It is believed only with the mark that is written last; without it, it is made anew.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { accessSync, closeSync, constants, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { failure } from './failure.mjs'
import { root, shown } from './home.mjs'
import { whileHolding } from './lock.mjs'
import { ask, onPath } from './redis.mjs'

const range = { lowest: [3, 11], highest: [3, 13], words: 'Python 3.11, 3.12 or 3.13' }
const lockFile = join(root, 'python', 'requirements.lock')

/** PyTorch's own index of CPU builds, asked only when pip finds none by itself. */
const pytorchCpuIndex = 'https://download.pytorch.org/whl/cpu'

/**
 * @typedef {object} EnvironmentChoice
 * @property {string} home where set-up keeps what it fetched
 * @property {boolean} [gpu] the GPU build of torch instead of the CPU one
 * @property {string} [lock] the lock file, when it is another than the repository's
 * @property {string} [cpuIndex] the index asked for torch's CPU build after pip's own
 */

/** @typedef {{ torch: string, cuda: string | null, python: string }} Mark */

/** @param {EnvironmentChoice} choice */
export function environmentOf({ home, gpu = false, lock = lockFile }) {
  const text = readFileSync(lock, 'utf8')
  const flavour = gpu ? 'gpu' : 'cpu'
  const key = createHash('sha256').update(`${process.platform} ${process.arch} ${flavour}\n${text}`).digest('hex').slice(0, 12)
  const folder = join(home, 'python', `${flavour}-${key}`)
  const pins = text
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter(Boolean)
  return { folder, flavour, pins, interpreter: join(folder, 'bin', 'python'), mark: join(folder, 'complete.json'), log: `${folder}.log` }
}

/**
 * The finished environment, or undefined. Fetches nothing and takes a millisecond.
 * @param {EnvironmentChoice} choice
 * @returns {({ interpreter: string } & Mark) | undefined}
 */
export function readyEnvironment(choice) {
  const { interpreter, mark } = environmentOf(choice)
  try {
    const found = /** @type {Mark} */ (JSON.parse(readFileSync(mark, 'utf8')))
    // A link into a Python that was removed since is not executable.
    accessSync(interpreter, constants.X_OK)
    return { interpreter, ...found }
  } catch {
    return undefined
  }
}

/**
 * The finished environment, made when there is none. Two at a time wait for one another; one that was killed is made anew.
 * @param {EnvironmentChoice} choice
 * @param {import('./say.mjs').Say} say
 * @returns {Promise<{ interpreter: string } & Mark>}
 */
export async function ensurePython(choice, say) {
  const ready = readyEnvironment(choice)
  if (ready) return ready
  const environment = environmentOf(choice)
  mkdirSync(join(choice.home, 'python'), { recursive: true })
  return whileHolding(
    environment.folder,
    'setup',
    async () => {
      const meanwhile = readyEnvironment(choice)
      if (meanwhile) return meanwhile
      await make(environment, choice, say)
      const made = readyEnvironment(choice)
      if (!made) throw failure(`${environment.folder} was made, but its interpreter cannot be run`)
      return made
    },
    (pid) => say.line(`Another set-up (pid ${String(pid)}) is making the Python environment; waiting for it.`),
  )
}

/** @param {ReturnType<typeof environmentOf>} environment @param {EnvironmentChoice} choice @param {import('./say.mjs').Say} say */
async function make(environment, choice, say) {
  const { folder, interpreter, log, mark, pins } = environment
  const python = await findPython()
  const size = choice.gpu ? 'about 3 GB, 7 GB on disk' : 'about 350 MB, 1.3 GB on disk'
  say.line(
    `Fetching the Python packages (torch, diffusers, transformers): ${size}, into ${shown(folder)}. Two minutes beside a fast mirror, more at home; once.`,
  )
  rmSync(folder, { recursive: true, force: true })
  writeFileSync(log, '')

  const venv = await say.step(`Python ${python.version} environment`, () => run(python.command, ['-m', 'venv', folder], log))
  if (!venv.ok) throw failure(`Python could not make an environment in ${folder}:\n${lastLines(venv.words)}`)
  const torch = pins.find((pin) => pin.startsWith('torch=='))?.slice('torch=='.length)
  if (torch === undefined) throw failure('the lock file names no torch')
  const others = `${folder}/requirements.txt`
  writeFileSync(others, `${pins.filter((pin) => !pin.startsWith('torch==')).join('\n')}\n`)
  const pip = (/** @type {string[]} */ args) =>
    run(interpreter, ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-input', '--progress-bar', 'off', ...args], log)
  const installOthers = async () => {
    const done = await say.step(`${pins.length - 1} packages`, () => pip(['--no-deps', '-r', others]), log)
    if (!done.ok) throw failure(`pip could not install the packages:\n${errorLines(done.words)}\nAll it said is in ${log}.`)
  }
  const installTorch = () =>
    say.step(`torch ${torch} for the ${choice.gpu ? 'GPU' : 'CPU'}`, () => chooseTorch(torch, choice, interpreter, pip, log), log)
  // The GPU build brings packages of its own, which must find the pinned ones in place.
  if (choice.gpu) {
    await installOthers()
    await installTorch()
  } else {
    await installTorch()
    await installOthers()
  }

  const { ok, words } = await run(interpreter, ['-I', '-c', inspect, ...pins.filter((pin) => !pin.startsWith('torch=='))], log)
  if (!ok) throw failure(`the environment is not what the lock says:\n${lastLines(words)}`)
  /** @type {Mark} */
  const built = { ...JSON.parse(words.trim().split('\n').at(-1) ?? ''), python: python.version }
  if (choice.gpu && process.platform === 'linux' && built.cuda === null)
    throw failure(`pip's torch ${built.torch} has no CUDA; without --gpu it is what you want`)
  const part = `${mark}.part`
  writeFileSync(part, `${JSON.stringify(built)}\n`)
  const file = openSync(part, 'r+')
  fsyncSync(file)
  closeSync(file)
  renameSync(part, mark)
}

/** Compares what is installed with the pins given as arguments; prints torch's build, read from its files because importing takes seconds. */
const inspect = `
import importlib.metadata as m, json, pathlib, re, sys
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
cuda = re.search(r"^cuda.*= '([^']+)'", text, re.M)
print(json.dumps({"torch": m.version("torch"), "cuda": cuda and cuda[1]}))
`

/**
 * Installs one build of torch. For the CPU: what pip finds as \`+cpu\`; else the same with PyTorch's own CPU index; else a plain one, if a
 * look at it shows that it needs no CUDA packages, as where somebody put a CPU build under the plain name. Never gigabytes of CUDA unasked.
 * @param {string} version @param {EnvironmentChoice} choice @param {string} interpreter
 * @param {(args: string[]) => Promise<{ ok: boolean, words: string }>} pip @param {string} log
 */
async function chooseTorch(version, { gpu, cpuIndex = pytorchCpuIndex }, interpreter, pip, log) {
  const must = async (/** @type {Promise<{ ok: boolean, words: string }>} */ attempt) => {
    const { ok, words } = await attempt
    if (ok) return true
    if (isMissing(words)) return false
    throw failure(`pip could not install torch ${version}:\n${errorLines(words)}\nAll it said is in ${log}.`)
  }
  if (process.platform === 'darwin' || gpu) {
    // Three equal signs: `==2.13.0` would be content with 2.13.0+cpu.
    const plain = process.platform === 'darwin' ? `torch==${version}` : `torch===${version}`
    if (await must(pip([plain]))) return
    throw failure(`pip finds no torch ${version} for this machine`)
  }
  if (await must(pip(['--no-deps', '--retries', '2', `torch==${version}+cpu`]))) return
  if (await must(pip(['--no-deps', '--retries', '1', '--timeout', '10', '--extra-index-url', cpuIndex, `torch==${version}+cpu`]))) return

  const report = `${log}.torch.json`
  const look = [
    '-m',
    'pip',
    'install',
    '--disable-pip-version-check',
    '--no-input',
    '--quiet',
    '--dry-run',
    '--ignore-installed',
    '--no-deps',
    '--retries',
    '1',
  ]
  const looked = await run(interpreter, [...look, '--report', report, `torch==${version}`], log, 60_000)
  if (looked.ok) {
    const [found] = JSON.parse(readFileSync(report, 'utf8')).install
    rmSync(report)
    const needs = /** @type {string[]} */ (found.metadata.requires_dist ?? [])
    if (!needs.some((need) => /^(nvidia|cuda)[-_]/i.test(need))) {
      if (await must(pip(['--no-deps', `torch==${version}`]))) return
    }
    throw failure(
      `pip finds torch ${version} only as a CUDA build of some gigabytes, and PyTorch's CPU index (${cpuIndex}) cannot be reached. ` +
        'Point pip at a mirror of that index (PIP_EXTRA_INDEX_URL), or take the CUDA build with --gpu.',
    )
  }
  throw failure(
    `pip finds no torch ${version} for the CPU, neither by itself nor in PyTorch's CPU index (${cpuIndex}). ` +
      `Check the network, or point pip at a mirror (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL); all it said is in ${log}.`,
  )
}

/** @param {string} words */
const isMissing = (words) => /No matching distribution found|Could not find a version that satisfies/.test(words)

/**
 * A Python in the range, with venv and ensurepip; the machine's `python3` before others.
 * @returns {Promise<{ command: string, version: string }>}
 */
export async function findPython() {
  const probe =
    'import sys, struct; import importlib.util as u; print(*sys.version_info[:3], sys.implementation.name, 8 * struct.calcsize("P"), u.find_spec("ensurepip") is not None and u.find_spec("venv") is not None)'
  /** @type {string[]} */
  const seen = []
  let unfinished
  for (const command of new Set(['python3', 'python3.13', 'python3.12', 'python3.11', 'python'].flatMap(onPath))) {
    const { code, out } = await ask(command, ['-I', '-c', probe], { timeoutMs: 10_000 })
    const [major, minor, patch, implementation, bits, hasVenv] = out.trim().split(' ')
    if (code !== 0 || implementation === undefined) continue
    const version = `${major}.${minor}.${patch}`
    const isInRange = Number(major) === 3 && Number(minor) >= (range.lowest[1] ?? 0) && Number(minor) <= (range.highest[1] ?? 0)
    seen.push(`${version} (${command})`)
    if (!isInRange || implementation !== 'cpython' || bits !== '64') continue
    if (hasVenv === 'True') return { command, version }
    unfinished ??= { command, version, package: `python${major}.${minor}-venv` }
  }
  if (unfinished) {
    const how =
      onPath('apt-get').length > 0
        ? `\`sudo apt-get install ${unfinished.package}\``
        : 'the package of your distribution that holds venv and ensurepip'
    throw failure(
      `Python ${unfinished.version} (${unfinished.command}) comes without ensurepip here, so it cannot make an environment. Install it: ${how}, then run this again.`,
    )
  }
  const found = seen.length > 0 ? ` Found: ${[...new Set(seen)].join(', ')}.` : ' There is none on PATH.'
  const how = process.platform === 'darwin' ? ' `brew install python@3.13` brings one.' : ''
  throw failure(`Darkroom needs ${range.words}.${found}${how}`)
}

/**
 * Runs a program with its output in the log. Settings of the caller's that would send packages elsewhere do not reach it.
 * @param {string} command @param {string[]} args @param {string} log @param {number} [timeoutMs]
 * @returns {Promise<{ ok: boolean, words: string }>}
 */
function run(command, args, log, timeoutMs) {
  const { PYTHONHOME: _home, PYTHONPATH: _path, PIP_TARGET: _target, PIP_PREFIX: _prefix, VIRTUAL_ENV: _venv, ...rest } = process.env
  const output = openSync(log, 'a')
  return new Promise((settle) => {
    const env = { ...rest, PIP_USER: '0', PYTHONUNBUFFERED: '1', PYTHONDONTWRITEBYTECODE: '' }
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env,
      ...(timeoutMs && { timeout: timeoutMs, killSignal: 'SIGKILL' }),
    })
    let words = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk) => {
        words = (words + chunk).slice(-20_000)
        writeFileSync(output, chunk)
      })
    }
    const end = (/** @type {boolean} */ ok) => {
      closeSync(output)
      settle({ ok, words })
    }
    child.on('error', (error) => {
      words += error.message
      end(false)
    })
    child.on('close', (code) => end(code === 0))
  })
}

/** @param {string} words */
const lastLines = (words) => words.trim().split('\n').slice(-6).join('\n')

/** @param {string} words what pip calls an error, else its last lines */
function errorLines(words) {
  const errors = words.split('\n').filter((line) => line.startsWith('ERROR:'))
  return errors.length > 0 ? errors.slice(-4).join('\n') : lastLines(words)
}
