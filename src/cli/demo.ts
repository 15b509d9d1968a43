/**
 * `darkroom demo` draws a picture over HTTP on a farm of its own, and removes the farm. With `--kill` it draws the same
 * request twice: once undisturbed, once with the worker killed by SIGKILL in the middle. It compares the two files byte
 * for byte.
 */
import { cp, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { DarkroomClient, Problem, type ImageRequest, type Receipt, type Session } from '../client/index.ts'
import { root } from '../config.ts'
import { defineErrors } from '../errors.ts'
import { Scanner } from '../models/scanner.ts'
import type { Role, Supervisor, SupervisorEvent } from '../supervisor.ts'
import { savePictures } from './pictures.ts'
import { watch } from './sessions.ts'
import { Exit, progressView, say, whisper } from './terminal.ts'
import { describeEvent, superviseHere } from './up.ts'

const demoError = defineErrors('demo', {
  failed: { class: 'permanent', remedy: 'Run `npx darkroom doctor`; if it finds nothing, this is a defect of Darkroom.' },
})

const prompt = 'a red circle left of a blue square on yellow'
const seed = 8
/** The worker dies once a checkpoint at this call has been recorded. */
const killCall = 10

export interface DemoOptions {
  kill?: boolean
  gpu?: boolean
}

export async function demo({ kill = false, gpu = false }: DemoOptions): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-demo-'))
  try {
    // A GPU has one slot: after the kill a new worker starts there and goes on.
    const workers = kill && !gpu ? 2 : 1
    say(
      `A farm of its own in ${folder}: one Redis, one API, ${workers === 2 ? 'two workers' : 'one worker'}. It is gone when the demo ends.`,
    )
    const on = (event: SupervisorEvent): void => {
      const { what, is } = event
      if (is === 'starting' && what.startsWith('worker')) say(describeEvent({ ...event, detail: 'imports PyTorch, some seconds' }))
      if (is === 'ready' || is === 'failed' || is === 'ended' || is === 'unsynced') say(describeEvent(event))
    }
    const { supervisor, asked } = await superviseHere({ env: environment(folder, kill, gpu), workers: 0, on })
    const run = async (): Promise<void> => {
      for (let i = 1; i <= workers; i++) supervisor.addWorker(kill ? await placeOfItsOwn(folder, i) : {})
      await Promise.all(supervisor.workers.map((worker) => worker.ready))
      await (kill ? drawTwice(supervisor, gpu) : drawOnce(supervisor))
    }
    try {
      await Promise.race([run(), asked.then(() => Promise.reject(new Exit(130)))])
    } finally {
      await supervisor.stop()
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Settings of the user that the demo keeps; with the others it could become part of another farm. */
const kept = new Set(['HOME', 'PYTHON', 'THREADS', 'LOG', 'DEVICE'].map((name) => `DARKROOM_${name}`))

function environment(folder: string, kill: boolean, gpu: boolean): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => name !== 'REDIS_URL' && (!name.startsWith('DARKROOM_') || kept.has(name)),
  )
  return {
    ...Object.fromEntries(inherited),
    DARKROOM_DATA: folder,
    DARKROOM_MODELS: join(root, 'models'),
    DARKROOM_PORT: '0',
    ...(gpu && !process.env['DARKROOM_DEVICE']?.startsWith('cuda') && { DARKROOM_DEVICE: 'cuda' }),
    ...(kill && { DARKROOM_CHECKPOINT_CALLS: '1' }),
  }
}

/** Temporary and model folders that no other worker sees. */
async function placeOfItsOwn(folder: string, worker: number): Promise<NodeJS.ProcessEnv> {
  const place = join(folder, `worker-${worker}`)
  const [models, tmp] = [join(place, 'models'), join(place, 'tmp')]
  await mkdir(tmp, { recursive: true })
  await cp(join(root, 'models'), models, { recursive: true })
  return { DARKROOM_MODELS: models, TMPDIR: tmp }
}

async function drawOnce({ url }: Supervisor): Promise<void> {
  const client = new DarkroomClient({ url })
  const session = await draw(client, { prompt, seed })
  for (const path of await savePictures(client, session)) say(`saved ${shownPath(path)}`)
  say(`
Next:
  npm start                                              keep it running
  npx darkroom generate "a large green star on black"    draw something else, in another terminal
  npm run demo -- --kill                                 kill the worker in the middle; the picture is the same to the byte
`)
  const scanner = new Scanner([join(root, 'models')])
  await scanner.scan()
  const model = [...scanner.entries.values()].find(({ drawing }) => Object.keys(drawing?.vocabulary ?? {}).length > 0)
  if (!model?.drawing) return
  say(`The model ${model.name} knows these words:`)
  for (const [kind, words] of Object.entries(model.drawing.vocabulary)) say(`  ${kind.padEnd(12)} ${words.join(', ')}`)
}

async function drawTwice(supervisor: Supervisor, gpu: boolean): Promise<void> {
  const client = new DarkroomClient({ url: supervisor.url })
  // A GPU draws the model's own size in less time than a kill takes: the kill has to come in the middle.
  const request: ImageRequest = { prompt, seed, ...(gpu ? { steps: 200, width: 1024, height: 1024 } : { steps: 30 }) }
  say('\n1. Undisturbed.')
  const undisturbed = await draw(client, request)
  say(`\n2. The same request; its worker is killed (SIGKILL) when a checkpoint at call ${killCall} or later has been recorded.`)
  const killed = await draw(client, request, (session) => killInTheMiddle(supervisor, client, session))
  checkTakeover(await client.receipt(killed.id))

  const hashes = [undisturbed, killed].map(({ output }) => output?.images?.[0]?.sha256)
  for (const [name, session] of [
    ['undisturbed', undisturbed],
    ['killed', killed],
  ] as const) {
    for (const path of await savePictures(client, session, `darkroom-${name}.png`)) say(`saved ${shownPath(path)}`)
  }
  say()
  for (const hash of hashes) say(`sha256 ${hash}`)
  if (hashes[0] === undefined || hashes[0] !== hashes[1]) throw demoError('failed', 'the two pictures differ')
  say('equal, byte for byte')
}

/** Submits, shows progress, and returns the session when it has its picture. */
async function draw(client: DarkroomClient, request: ImageRequest, meanwhile?: (session: Session) => Promise<void>): Promise<Session> {
  const session = await client.generate(request)
  const { width, height, steps, sampler } = session.input
  say(`"${request.prompt}"  ${String(width)} × ${String(height)}, ${String(steps)} steps, ${String(sampler)}, seed ${request.seed}`)
  const [end] = await Promise.all([watch(client, session.id, progressView()), meanwhile?.(session)])
  if (end.status === 'succeeded') return end
  throw Problem.ofSession(end)
}

async function killInTheMiddle({ workers }: Supervisor, client: DarkroomClient, { id }: Session): Promise<void> {
  for await (const frame of client.follow(id)) {
    if (frame.kind !== 'progress' || (frame.progress.checkpoint ?? 0) < killCall) continue
    const attempt = (await client.receipt(id)).steps.find(({ step }) => step === 'inference.denoise')?.attempts.at(-1)
    const victim = await find(workers, attempt?.worker)
    const { pid } = victim
    // The only worker is left to the supervisor, which starts another one in its place.
    if (workers.length === 1 && pid !== undefined) process.kill(pid, 'SIGKILL')
    else await victim.kill()
    whisper(`  killed worker ${attempt?.worker} (pid ${pid}): a checkpoint at call ${frame.progress.checkpoint} had been recorded`)
    return
  }
  throw demoError('failed', `the session ended before a checkpoint at call ${killCall} was seen, so nothing was killed`)
}

async function find(workers: readonly Role[], id: string | undefined): Promise<Role> {
  for (const worker of workers) if ((await worker.ready)['id'] === id) return worker
  throw demoError('failed', `worker ${id} is none of this farm`)
}

/** The receipt must say that one worker was lost and another one went on from its checkpoint. */
function checkTakeover({ steps, notes }: Receipt): void {
  for (const { note } of notes) say(`  ${note}`)
  const attempts = steps.find(({ step }) => step === 'inference.denoise')?.attempts ?? []
  const [lost, last] = [attempts.find(({ end }) => end === 'lost'), attempts.at(-1)]
  if (!lost || !last || lost.worker === last.worker || (last.resumedFrom?.call ?? 0) < killCall) {
    throw demoError('failed', `the receipt tells of no takeover: ${JSON.stringify(attempts)}`)
  }
  say(`  worker ${last.worker} went on from call ${last.resumedFrom?.call}`)
}

const shownPath = (path: string): string => relative(process.cwd(), path) || path
