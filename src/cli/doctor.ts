/** `darkroom doctor`: checks this installation. It reads only; it fetches and starts nothing. */
import { constants, existsSync } from 'node:fs'
import { access, statfs } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { availableParallelism, cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { askHolder } from '../../host/lock.mjs'
import { builtAddon, findRedis, howToInstall, isInstalled, readyEnvironment } from '../../host/places.mjs'
import { findCompiler, hasNvidiaDriver } from '../../host/programs.mjs'
import { DarkroomClient } from '../client/index.ts'
import { readConfig, root, type Config } from '../config.ts'
import { Composer } from '../models/composer.ts'
import { configRoots } from '../models/configs.ts'
import { Scanner } from '../models/scanner.ts'
import { checkSafety, connect, untilReady } from '../redis.ts'
import { Exit, say, sayJson } from './terminal.ts'

export interface Finding {
  what: string
  /** null: neither good nor bad. */
  ok: boolean | null
  is: string
  /** A way to mend it. */
  remedy?: string
}

export async function doctor({ json }: { json?: boolean }): Promise<void> {
  const config = readConfig()
  const slow = await Promise.all([redis(config), data(config), models(config), running(config)])
  const findings = [...node(), ...python(config), ...native(), ...device(config), ...slow.flat()]
  if (json) sayJson(findings)
  else for (const finding of findings) say(describe(finding))
  if (findings.some(({ ok }) => ok === false)) throw new Exit(1)
}

function describe({ what, ok, is, remedy }: Finding): string {
  const mark = ok === null ? '·' : ok ? '✓' : '✗'
  return `${mark} ${what.padEnd(10)} ${is}${remedy ? `\n${' '.repeat(13)}${remedy}` : ''}`
}

function node(): Finding[] {
  const installed = isInstalled(root)
  return [
    { what: 'node', ok: true, is: `${process.versions.node} on ${process.platform} ${process.arch}` },
    {
      what: 'packages',
      ok: installed,
      is: installed ? 'as package-lock.json names them' : 'not as package-lock.json names them',
      ...(!installed && { remedy: 'Run `npm ci`.' }),
    },
  ]
}

function python({ home, python: own }: Config): Finding[] {
  if (own !== undefined) return [{ what: 'python', ok: existsSync(own), is: `${own} (DARKROOM_PYTHON)` }]
  const found = (['cpu', 'gpu'] as const).flatMap((flavour) => {
    const environment = readyEnvironment({ home, gpu: flavour === 'gpu' })
    return environment ? [`${environment.python} with torch ${environment.torch} (${flavour})`] : []
  })
  if (found.length === 0)
    return [{ what: 'python', ok: false, is: `no environment under ${home}`, remedy: 'Run `npm run setup`, which makes it.' }]
  return [{ what: 'python', ok: true, is: found.join('; ') }]
}

/** Workers go on without it, but reach no memory of a GPU. */
function native(): Finding[] {
  const without = 'workers hold host memory only, in plain TypeScript'
  if (!existsSync(builtAddon)) {
    const remedy = findCompiler() ? 'Run `npm run build:native`.' : 'Install g++ or clang, then run `npm run build:native`.'
    return [{ what: 'native', ok: null, is: `the addon is not built: ${without}`, remedy }]
  }
  try {
    const { backends } = createRequire(import.meta.url)(builtAddon) as { backends: string[] }
    return [{ what: 'native', ok: true, is: `${builtAddon}, with ${backends.join(', ')}` }]
  } catch (error) {
    return [
      {
        what: 'native',
        ok: false,
        is: `${builtAddon}: ${(error as Error).message}; ${without}`,
        remedy: 'Run `npm run build:native` again.',
      },
    ]
  }
}

function device({ device: chosen, threads, home }: Config): Finding[] {
  const hasDriver = hasNvidiaDriver()
  const model = cpus()[0]?.model.trim() ?? 'unknown processor'
  const is =
    chosen === 'cpu'
      ? `workers draw on the CPU: ${threads} of ${availableParallelism()} threads, ${model}`
      : `workers draw on ${chosen} (DARKROOM_DEVICE)`
  if (!chosen.startsWith('cpu')) {
    const hasBuild = readyEnvironment({ home, gpu: true }) !== undefined
    const remedy = hasDriver
      ? 'Run `npm start -- --gpu`, which fetches the GPU build of PyTorch (about 3 GB).'
      : 'Install the NVIDIA driver, or set DARKROOM_DEVICE=cpu.'
    return [{ what: 'device', ok: hasDriver && hasBuild, is, ...(!(hasDriver && hasBuild) && { remedy }) }]
  }
  if (!hasDriver) return [{ what: 'device', ok: true, is }]
  return [
    { what: 'device', ok: true, is, remedy: 'There is an NVIDIA driver here: `npm start -- --gpu` draws on it (fetches about 3 GB once).' },
  ]
}

async function redis({ home, redisUrl, durability }: Config): Promise<Finding[]> {
  if (redisUrl !== undefined) {
    const client = connect(redisUrl, { patience: 'wait' })
    try {
      await untilReady(client, 3000)
      await checkSafety(client, redisUrl, durability)
      const version = /^(?:valkey|redis)_version:(\S+)/m.exec(await client.info('server'))?.[1]
      return [{ what: 'redis', ok: true, is: `${version} at REDIS_URL` }]
    } catch (error) {
      return [
        {
          what: 'redis',
          ok: false,
          is: `REDIS_URL: ${(error as Error).message}`,
          remedy: 'Start that Redis, or unset REDIS_URL to use a private one.',
        },
      ]
    } finally {
      client.disconnect()
    }
  }
  const found = await findRedis(home)
  if (!found) return [{ what: 'redis', ok: false, is: 'none found', remedy: `Run \`npm run setup\`, or ${howToInstall()}.` }]
  const isOld = Number(found.version.split('.')[0]) < 7
  const is = `${found.version}, ${found.from === 'PATH' ? found.command : 'the one that set-up fetched'}`
  const remedy = `A newer one is faster under load: from 7.0 on it rewrites its append-only file in parts. To have it, ${howToInstall()}.`
  return [{ what: 'redis', ok: true, is, ...(isOld && { remedy }) }]
}

/** The folder, or as much of its path as exists. */
const nearest = (folder: string): string => (existsSync(folder) ? folder : nearest(dirname(folder)))

async function data({ data: folder }: Config): Promise<Finding[]> {
  try {
    const existing = nearest(folder)
    await access(existing, constants.W_OK)
    const { bavail, bsize } = await statfs(existing)
    const free = (bavail * bsize) / 2 ** 30
    return [
      {
        what: 'data',
        ok: free > 1,
        is: `${folder}, ${free.toFixed(1)} GB free`,
        ...(free <= 1 && { remedy: 'Free some space there, or choose another folder with DARKROOM_DATA.' }),
      },
    ]
  } catch (error) {
    return [
      {
        what: 'data',
        ok: false,
        is: `${folder}: ${(error as Error).message}`,
        remedy: 'Choose a folder that can be written with DARKROOM_DATA.',
      },
    ]
  }
}

/** More than these are counted, not named. */
const maxNamed = 10
/** Kinds of models that draw by themselves, when they lack nothing. */
const drawsByKind: ReadonlySet<string> = new Set(['checkpoint', 'diffusion-model'])

async function models(config: Config): Promise<Finding[]> {
  const { models: folders } = config
  const scanner = new Scanner(folders)
  await scanner.scan()
  await new Composer(configRoots(config)).compose(scanner.entries)
  const entries = [...scanner.entries.values()]
  const usable = entries.filter(({ drawing }) => drawing)
  const drawless = entries.filter(({ verdict, drawing }) => !drawing && !verdict.reason)
  // What would draw if it were not for something that can be had.
  const lacking = drawless.filter(({ verdict, obstacle }) => obstacle !== null && drawsByKind.has(verdict.kind))
  const others = drawless.length - lacking.length
  const faulty = entries.filter(({ verdict }) => verdict.reason)
  const searched = scanner.roots.map(({ path }) => path).join(', ') || 'no folder: none of the configured ones exists'
  const named = usable.slice(0, maxNamed).map(({ name, drawing, path }) => `${name} (${drawing?.family}) in ${path}`)
  const more = [usable.length > maxNamed && `${usable.length - maxNamed} more`, others > 0 && `${others} that do not draw by themselves`]
  const is = [...named, ...more.filter((each) => each !== false)].join('; ')
  return [
    usable.length > 0
      ? { what: 'models', ok: true, is: `${is}; searched ${searched}` }
      : {
          what: 'models',
          ok: false,
          is: `none that draws in ${folders.join(', ')}${is && `; ${is}`}`,
          remedy: 'Put a diffusers folder there, or name another folder with DARKROOM_MODELS.',
        },
    ...scanner.problems.map(({ path, problem }) => ({
      what: 'models',
      ok: null,
      is: `${path}: ${problem}`,
      remedy: 'Correct DARKROOM_MODELS, or the file that names the folder.',
    })),
    ...lacking.slice(0, maxNamed).map(({ path, obstacle }) => ({ what: 'models', ok: null, is: `${path}: ${obstacle}` })),
    ...(lacking.length > maxNamed
      ? [
          {
            what: 'models',
            ok: null,
            is: `${lacking.length - maxNamed} more that cannot draw yet: \`darkroom models --status unsupported\``,
          },
        ]
      : []),
    ...faulty.slice(0, maxNamed).map(({ path, verdict: { reason } }) => ({
      what: 'models',
      ok: null,
      is: `${path}: ${reason?.message ?? ''}`,
      ...(reason && { remedy: reason.remedy }),
    })),
    ...(faulty.length > maxNamed
      ? [{ what: 'models', ok: null, is: `${faulty.length - maxNamed} more that are not understood: \`darkroom models\` lists them` }]
      : []),
  ]
}

async function running({ data: folder, port }: Config): Promise<Finding[]> {
  const holder = (await askHolder(folder, 'up')) as { pid?: number; url?: string } | undefined
  const url = process.env['DARKROOM_URL'] ?? holder?.url
  if (url === undefined)
    return [{ what: 'running', ok: null, is: `no \`darkroom up\` on ${join(folder)} (it would listen on port ${port})` }]
  const { DARKROOM_KEY: key } = process.env
  const client = new DarkroomClient({ url, patienceMs: 0, ...(key !== undefined && { key }) })
  try {
    const [reasons, workers, { logLinesDropped }] = [await client.notReady(), await client.workers(), await client.health()]
    const list =
      workers
        .map(({ id, device: { kind }, status, sparePid, native: { reason } }) => {
          const children = sparePid === null ? 'no spare child' : `spare child ${sparePid}`
          return `${id} (${kind}, ${status}, ${children}${reason === null ? '' : `; ${reason}`})`
        })
        .join(', ') || 'no worker'
    const is = `${url}${holder?.pid ? `, pid ${holder.pid}` : ''}: ${list}`
    const dropped = workers.reduce((sum, worker) => sum + worker.logLinesDropped, logLinesDropped)
    const logs = {
      what: 'logs',
      ok: false,
      is: `${dropped} lines could not be written`,
      remedy: `Free space on the disk of ${folder}/logs.`,
    }
    return [
      { what: 'running', ok: reasons.length === 0, is, ...(reasons.length > 0 && { remedy: reasons.join('; ') }) },
      ...(dropped > 0 ? [logs] : []),
    ]
  } catch (error) {
    return [
      { what: 'running', ok: false, is: `${url}: ${(error as Error).message}`, remedy: 'Read the log of the API in the data folder.' },
    ]
  }
}
