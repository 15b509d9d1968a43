/** Which Python draws, and on which GPU each worker of a machine: one worker a card, named by its UUID. */
import { readyEnvironment } from '../host/places.mjs'
import { ask } from '../host/programs.mjs'
import type { Config } from './config.ts'
import { configError, workerError } from './errors.ts'

/** A GPU as torch counts it: what is not visible to this user is not in the list. */
export interface Card {
  /** 32 hex digits in five groups; the same for every process and after every start of the machine. */
  uuid: string
  name: string
}

/** Importing torch takes seconds, the first time on a slow disk many, ms. */
const listMs = 120_000

const list = `
import json, torch
cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps([{"uuid": str(card.uuid), "name": card.name} for card in cards]))
`

/**
 * The interpreter that draws with this configuration.
 * @throws DarkroomError `worker.start_failed` when set-up has not made its environment
 */
export function interpreterOf({ home, device, python }: Pick<Config, 'home' | 'device' | 'python'>): string {
  const wantsGpu = !device.startsWith('cpu')
  // The GPU build computes on the CPU as well; not the other way round.
  const environment = (wantsGpu ? undefined : readyEnvironment({ home })) ?? readyEnvironment({ home, gpu: true })
  const interpreter = python ?? environment?.interpreter
  if (interpreter !== undefined) return interpreter
  const remedy = wantsGpu ? 'Run `npm start -- --gpu`; it installs the GPU build of PyTorch.' : 'Run `npm run setup`; it makes one.'
  throw workerError('start_failed', `there is no Python environment for ${device} under ${home}`, { remedy })
}

/** The GPUs of this machine. @throws DarkroomError `worker.start_failed` when Python cannot say */
export async function listCards(config: Config, env: NodeJS.ProcessEnv): Promise<Card[]> {
  const interpreter = interpreterOf(config)
  const { code, out, err } = await ask(interpreter, ['-I', '-c', list], { timeoutMs: listMs, env })
  try {
    if (code === 0) return JSON.parse(out) as Card[]
  } catch {
    // What it said instead follows.
  }
  throw workerError('start_failed', `${interpreter} cannot list the GPUs: ${(err || out).trim().split('\n').at(-1) ?? ''}`)
}

/**
 * The device of each worker, as DARKROOM_DEVICE.
 * @param device what the user chose: `cpu`, `cuda` for any card, or one card
 * @param cards asked for only when `device` is `cuda` and there are several workers: one takes the first
 * @throws DarkroomError `config.invalid` for more workers than cards
 */
export async function devicesOf(device: string, workers: number, cards: () => Promise<Card[]>): Promise<string[]> {
  if (workers <= 1 || device.startsWith('cpu')) return Array.from({ length: workers }, () => device)
  const refuse = (why: string, remedy: string): Error =>
    configError('invalid', `${workers} workers on ${why}: a GPU has one worker`, { field: 'DARKROOM_WORKERS', remedy })
  if (device !== 'cuda') throw refuse(`DARKROOM_DEVICE=${device}`, 'Start one worker there, or set DARKROOM_DEVICE=cuda to use every GPU.')
  const found = [...new Map((await cards()).map((card) => [card.uuid, card])).values()]
  if (found.length >= workers) return found.slice(0, workers).map(({ uuid }) => `cuda:${uuid}`)
  const names = found.map(({ name }) => name).join(', ')
  const there = found.length === 0 ? 'no GPU that torch can use' : `${found.length} GPU${found.length === 1 ? '' : 's'} (${names})`
  throw refuse(
    there,
    found.length === 0 ? 'Run `npx darkroom doctor`.' : `Start at most ${found.length} with --workers or DARKROOM_WORKERS.`,
  )
}
