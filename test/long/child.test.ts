import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { fakeChild } from '../support/child.ts'
import type { CallListeners, Outcome } from '../../src/workers/python/call.ts'
import { childEnvironment } from '../../src/workers/python/environment.ts'
import { splitLines } from '../../src/workers/python/lines.ts'
import type { CheckpointMade, Progress, RequestData } from '../../src/workers/python/protocol.ts'
import { PythonChild, type ChildOptions } from '../../src/workers/python/supervisor.ts'

const model = { id: 'fake', path: '/models/fake', bodyHash: 'a'.repeat(64), family: 'sd1' as const }
const request = {
  model,
  prompt: 'a red circle',
  negativePrompt: '',
  width: 64,
  height: 48,
  steps: 20,
  guidance: 3,
  seed: 7,
  sampler: 'Euler a',
}

let folder: string
let children: PythonChild[]
let logged: Record<string, unknown>[]

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'darkroom-child-'))
  children = []
  logged = []
})
afterEach(async () => {
  await Promise.all(children.map((child) => child.stop(0)))
  rmSync(folder, { recursive: true, force: true })
})

interface Setup {
  stall?: ChildOptions['stall']
  calls?: number | null
  env?: Record<string, string>
  options?: Partial<ChildOptions>
}

function childOf(args: string[], { stall = {}, calls = 1, env = {}, options = {} }: Setup = {}): PythonChild {
  const log = pino(
    { level: 'trace' },
    new Writable({
      write(chunk: Buffer, _, done) {
        logged.push(JSON.parse(chunk.toString()) as Record<string, unknown>)
        done()
      },
    }),
  )
  const child = new PythonChild({
    command: fakeChild(...args),
    env: { ...childEnvironment(folder, join(root, 'python')), ...env },
    hello: {
      workerId: 'w',
      device: 'cpu',
      threads: 1,
      slots: 1,
      roots: { models: ['/models'], attempts: folder, compiled: null },
      checkpoint: { intervalS: 1, calls },
      previewS: 0,
      modelBytes: null,
    },
    log,
    stall: { termMs: 500, ...stall },
    ...options,
  })
  children.push(child)
  return child
}

let attempts = 0
function work(checkpoint: RequestData<'inference.denoise'>['checkpoint'] = null): RequestData<'inference.denoise'> {
  const dir = join(folder, `attempt-${++attempts}`)
  mkdirSync(dir)
  return { sessionId: 's1', dir, input: request, files: {}, checkpoint }
}

function denoise(child: PythonChild, data = work(), watch: CallListeners = {}) {
  return child.start('inference.denoise', data, watch)
}

function latentsOf(outcome: Outcome): string {
  if (outcome.type !== 'result') throw new Error(`released, not a result`)
  const file = outcome.files['latents']
  if (!file) throw new Error('no latents')
  expect(createHash('sha256').update(readFileSync(file.path)).digest('hex')).toBe(file.sha256)
  return file.sha256
}

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'nothing thrown',
    (error: { code?: string }) => error.code,
  )
const gone = (pid: number) => !existsSync(`/proc/${pid}`) || / Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
const until = async (condition: () => boolean) => {
  for (const end = Date.now() + 5_000; !condition(); await new Promise((resolve) => setTimeout(resolve, 10))) {
    if (Date.now() > end) throw new Error('the condition did not come true within 5 s')
  }
}

describe('a healthy child', () => {
  it('shakes hands fast, works, and answers pings meanwhile', async () => {
    const born = performance.now()
    const child = childOf(['--build', 'b1', '--device-name', 'Fake 9000'])
    const ready = await child.ready()
    expect(performance.now() - born).toBeLessThan(2_000)
    expect(ready).toMatchObject({ pid: child.pid, hardware: { name: 'Fake 9000', totalBytes: null }, build: { torch: 'b1', numerics: 1 } })

    const progress: Omit<Progress, 'type'>[] = []
    const checkpoints: CheckpointMade[] = []
    const call = denoise(child, work(), { progress: (frame) => progress.push(frame), checkpoint: (made) => checkpoints.push(made) })
    await until(() => checkpoints.length > 2)
    const vitals = await child.ping()
    expect(vitals).toMatchObject({
      busy: { action: 'inference.denoise', requestId: call.requestId },
      sessions: { s1: 64 * 48 },
      models: [{ id: 'fake', bytes: 1000, isIdle: false }],
    })
    const outcome = await call.outcome
    expect(outcome).toMatchObject({ type: 'result', stats: { calls: 20, resumedFrom: 0 } })
    expect(progress[0]).toEqual({ stage: 'load' })
    expect(progress.at(-1)).toMatchObject({ stage: 'run', call: 20, calls: 20 })
    expect(checkpoints.map((made) => made.call)).toEqual(Array.from({ length: 19 }, (_, i) => i + 1))
    expect(await child.ping()).toMatchObject({ busy: null, sessions: {} })

    const latents = {
      latents: { path: (outcome as { files: Record<string, { path: string }> }).files['latents']!.path, sha256: latentsOf(outcome) },
    }
    const decoded = await child.start('inference.decode', { ...work(), files: latents, input: { model, width: 64, height: 48 } }).outcome
    expect(decoded).toMatchObject({ files: { pixels: { bytes: 64 * 48 * 3 } } })
  })

  it('gives equal bytes for equal requests, and others for another build', async () => {
    const [one, two, other] = [childOf([]), childOf([]), childOf(['--build', 'other'])]
    const [a, b, c] = await Promise.all([one, two, other].map(async (child) => latentsOf(await denoise(child).outcome)))
    expect(a).toBe(b)
    expect(a).not.toBe(c)
  })

  it('pauses within a call, and another child goes on to the same bytes', async () => {
    const child = childOf([])
    const undisturbed = latentsOf(await denoise(child).outcome)
    const seen: number[] = []
    const call = denoise(child, work(), { checkpoint: (made) => seen.push(made.call) })
    await until(() => seen.length >= 5)
    call.pause()
    const paused = await call.outcome
    if (paused.type !== 'released' || !paused.checkpoint) throw new Error('not released with a checkpoint')
    expect(paused.checkpoint.call).toBeLessThanOrEqual(seen.length + 2)
    const { bytes: _, ...checkpoint } = paused.checkpoint
    const resumed = await denoise(childOf([]), work(checkpoint)).outcome
    expect(resumed).toMatchObject({ stats: { resumedFrom: checkpoint.call, checkpointRefused: null } })
    expect(latentsOf(resumed)).toBe(undisturbed)

    const refused = await denoise(child, work({ ...checkpoint, sha256: '0'.repeat(64) })).outcome
    expect(refused).toMatchObject({ stats: { resumedFrom: 0, checkpointRefused: expect.stringContaining('SHA-256') } })
    expect(latentsOf(refused)).toBe(undisturbed)
  })

  it('cancels what runs and what waits', async () => {
    const child = childOf(['--call-ms', '50'])
    await child.ready()
    const [running, queued] = [denoise(child), denoise(child)]
    running.cancel()
    queued.cancel()
    expect(await codeOf(running.outcome)).toBe('session.cancelled')
    expect(await codeOf(queued.outcome)).toBe('session.cancelled')
    const early = denoise(childOf(['--import-ms', '500']))
    early.cancel()
    expect(await codeOf(early.outcome)).toBe('session.cancelled')
    const paused = denoise(childOf(['--import-ms', '500']))
    paused.pause()
    expect(await paused.outcome).toEqual({ type: 'released', checkpoint: null })
  })

  it('gets no more of the environment than the list says', async () => {
    process.env['REDIS_URL'] = 'redis://secret'
    process.env['DARKROOM_KEY'] = 'secret'
    try {
      const child = childOf([])
      await child.ready()
      const seen = readFileSync(`/proc/${child.pid}/environ`, 'latin1')
      expect(seen).not.toMatch(/secret|REDIS|DARKROOM/)
      expect(seen).toContain(`HOME=${folder}\0`)
      expect(seen).toContain('HF_HUB_OFFLINE=1\0')
    } finally {
      delete process.env['REDIS_URL']
      delete process.env['DARKROOM_KEY']
    }
  })

  it('stops on request: what runs is released, the process exits 0', async () => {
    const child = childOf(['--call-ms', '30'])
    const { pid } = await child.ready()
    const call = denoise(child)
    await until(() => child.heartbeat !== undefined)
    await child.stop(5_000)
    expect(await call.outcome).toMatchObject({ type: 'released' })
    expect(gone(pid)).toBe(true)
    expect(child.pid).toBe(null)
    expect(await codeOf(child.ready())).toBe('worker.child_died')
    expect(await codeOf(denoise(child).outcome)).toBe('worker.child_died')
  })

  it('re-logs what it says on stderr as objects', async () => {
    const child = childOf(['--fault', 'stdout-noise@2'])
    expect((await denoise(child).outcome).type).toBe('result')
    await until(() => logged.some((entry) => entry['stderr'] === 'noise from a grandchild'))
    for (const text of ['noise from print', 'noise from a raw write'])
      expect(logged).toContainEqual(expect.objectContaining({ stderr: text }))
    expect(logged).toContainEqual(expect.objectContaining({ level: 20, msg: 'fake child started' }))
  })
})

describe('a faulty child', () => {
  const short = { heartbeatMs: 1_500, stepMs: 1_000 }
  /** What is not about hanging must not look so on a busy machine. */
  const patient = { heartbeatMs: 30_000, stepMs: 30_000 }
  const fast = ['--heartbeat-ms', '50', '--call-ms', '5']

  /**
   * The fault ends this call with `code`, once; the next process does the work, from the last checkpoint, to the same
   * bytes.
   */
  async function survives(fault: string, code: string, stall: ChildOptions['stall'] = patient) {
    const reasons: string[] = []
    const child = childOf([...fast, '--fault', fault, '--once', join(folder, 'once')], {
      stall,
      options: { onGone: (reason) => reasons.push(reason.code) },
    })
    const { pid } = await child.ready()
    let last: CheckpointMade | undefined
    let settled = 0
    const call = denoise(child, work(), { checkpoint: (made) => (last = made) })
    call.outcome.finally(() => settled++).catch(() => undefined)
    const second = denoise(child)
    expect(await codeOf(call.outcome)).toBe(code)
    expect(await codeOf(second.outcome)).toBe(code)
    expect(gone(pid)).toBe(true)
    expect(last?.call).toBe(5)
    const { bytes: _, ...checkpoint } = last!
    const again = await denoise(child, work(checkpoint)).outcome
    expect((await child.ready()).pid).not.toBe(pid)
    expect(again).toMatchObject({ stats: { resumedFrom: 5 } })
    expect(latentsOf(again)).toBe(latentsOf(await denoise(childOf([])).outcome))
    expect(reasons).toEqual([code])
    expect(settled).toBe(1)
  }

  it('that dies is replaced', () => survives('crash@5', 'worker.child_died'))
  it('that hangs with a heartbeat is replaced', () => survives('hang@5', 'worker.child_hung', short))
  it('that freezes without one is replaced', () => survives('freeze@5', 'worker.child_hung', short))
  it('that writes garbage is replaced', () => survives('garbage@5', 'worker.protocol'))
  it('that dies within a line is replaced', () => survives('partial-line@5', 'worker.child_died'))
  it('that writes a line over the cap is replaced', () => survives('long-line@5', 'worker.protocol'))
  it('that loses its device is replaced', () => survives('exit:69@5', 'device.lost'))
  it('that asks to be recycled is replaced', () => survives('exit:75@5', 'worker.child_died'))

  it('that is only slow is left alone', async () => {
    const child = childOf([...fast, '--fault', 'slow@3'], { stall: { ...short, stepMs: 5_000 } })
    const { pid } = await child.ready()
    expect((await denoise(child).outcome).type).toBe('result')
    expect(child.pid).toBe(pid)
  })

  it('is recycled at once after exit 75 and backs off after a crash', async () => {
    const times: number[] = []
    const options = { onReady: () => times.push(performance.now()), onGone: () => times.push(performance.now()) }
    const child = childOf([...fast, '--fault', 'exit:75@1', '--once', join(folder, 'once')], { options })
    await codeOf(denoise(child).outcome)
    await child.ready()
    const crashing = childOf([...fast, '--fault', 'crash@1'], { options: {} })
    const started = performance.now()
    for (let i = 0; i < 3; i++) {
      await crashing.ready()
      expect(await codeOf(denoise(crashing).outcome)).toBe('worker.child_died')
    }
    expect(performance.now() - started).toBeGreaterThan(200 + 400)
    expect(logged.filter((entry) => entry['delayMs'] === 0)).toHaveLength(1)
    expect(logged.flatMap((entry) => (Number(entry['delayMs']) > 0 ? [entry['delayMs']] : []))).toEqual([200, 400, 800])
    expect(times).toHaveLength(3)
  })

  it('that repeats its terminal frame or talks on after a cancel is heard once', async () => {
    const child = childOf([...fast, '--fault', 'duplicate-terminal', '--fault', 'late-after-cancel'])
    const first = latentsOf(await denoise(child).outcome)
    const call = denoise(child)
    await until(() => child.heartbeat?.busy?.requestId === call.requestId)
    call.cancel()
    expect(await codeOf(call.outcome)).toBe('session.cancelled')
    expect(latentsOf(await denoise(child).outcome)).toBe(first)
    expect(logged.filter((entry) => entry['msg'] === 'a frame for no open request was ignored').length).toBeGreaterThanOrEqual(4)
  })

  it('passes its own errors on with code and class', async () => {
    const child = childOf([...fast, '--fault', 'error:memory.exhausted@2'])
    await import('../../src/domains/memory/errors.ts')
    await expect(denoise(child).outcome).rejects.toMatchObject({ code: 'memory.exhausted', class: 'resource' })
    await expect(child.start('inference.decode', { ...work(), input: { model, width: 64, height: 48 } }).outcome).rejects.toMatchObject({
      code: 'artifact.missing',
      class: 'resource',
      field: 'files.latents',
    })
    await expect(denoise(child, { ...work(), dir: '/etc' }).outcome).rejects.toMatchObject({ code: 'worker.path_refused', field: 'dir' })
  })

  it('that refuses the handshake is not started again', async () => {
    const child = childOf(['--fault', 'refuse'])
    expect(await codeOf(child.ready())).toBe('worker.start_failed')
    // Not the request's fault: another worker may run it.
    await expect(denoise(child).outcome).rejects.toMatchObject({ code: 'worker.child_died', class: 'transient' })
    expect(child.pid).toBe(null)
  })

  it('that has another schema is not started again, and says what to do', async () => {
    await expect(childOf(['--fault', 'other-schema']).ready()).rejects.toMatchObject({
      code: 'worker.start_failed',
      message: expect.stringContaining('install one version of both'),
    })
  })

  it('that cannot be started says why', async () => {
    const child = childOf([], { options: { command: [join(folder, 'no-such-python')] } })
    await expect(child.ready()).rejects.toMatchObject({ code: 'worker.start_failed', message: expect.stringContaining('no-such-python') })
  })

  it('that dies before the handshake is tried five times, then the reason is told', async () => {
    const child = childOf(['--fault', 'die-at-start'])
    await expect(child.ready()).rejects.toMatchObject({
      code: 'worker.start_failed',
      message: expect.stringContaining('told to die at the start'),
    })
  }, 10_000)

  it('that never answers the handshake is replaced', async () => {
    const child = childOf(['--fault', 'mute', '--once', join(folder, 'once')], { stall: { startMs: 1_000 } })
    await child.ready()
    expect(logged).toContainEqual(expect.objectContaining({ code: 'worker.child_hung', level: 50 }))
  })
})

describe('a call that does not stop', () => {
  const quick = { heartbeatMs: 2000, stepMs: 60_000, overrunMs: 400 }

  it.each(['pause', 'cancel'] as const)('after a %s ends with its process, which is replaced at once', async (how) => {
    const child = childOf(['--heartbeat-ms', '50', '--fault', 'hang@5', '--once', join(folder, 'once')], { stall: quick })
    const { pid } = await child.ready()
    let last: CheckpointMade | undefined
    const call = denoise(child, work(), { checkpoint: (made) => (last = made) })
    await until(() => last?.call === 5)
    const asked = performance.now()
    call[how]()
    expect(await codeOf(call.outcome)).toBe('worker.overran')
    expect(performance.now() - asked).toBeGreaterThan(400)
    expect(gone(pid)).toBe(true)
    const { bytes: _, ...checkpoint } = last!
    expect(await denoise(child, work(checkpoint)).outcome).toMatchObject({ type: 'result', stats: { resumedFrom: 5 } })
    expect(logged.flatMap(({ delayMs }) => (delayMs === undefined ? [] : [delayMs]))).toEqual([0])
  })

  it('has as long as its calls usually take, and longer', async () => {
    const child = childOf(['--heartbeat-ms', '50', '--call-ms', '900'], { stall: quick })
    const { pid } = await child.ready()
    let calls = 0
    const call = denoise(child, work(), { progress: (progress) => (calls = progress.call ?? 0) })
    await until(() => calls === 2)
    call.pause()
    expect(await call.outcome).toMatchObject({ type: 'released', checkpoint: { call: 3 } })
    expect(child.pid).toBe(pid)
  })

  it('is left alone while its model loads: the next one needs that too', async () => {
    const child = childOf(['--heartbeat-ms', '50', '--load-ms', '1500'], { stall: quick })
    const { pid } = await child.ready()
    let stage = ''
    const call = denoise(child, work(), { progress: (progress) => (stage = progress.stage) })
    await until(() => stage === 'load')
    call.cancel()
    expect(await codeOf(call.outcome)).toBe('session.cancelled')
    expect(child.pid).toBe(pid)
    expect((await child.ping()).models).toMatchObject([{ id: 'fake', isIdle: true }])
  })
})

describe('a spare', () => {
  const slowImports = ['--import-ms', '1000', '--heartbeat-ms', '50']

  /** A child with a spare whose imports are done. */
  async function withSpare(setup: Setup = {}, args = slowImports): Promise<{ child: PythonChild; spare: number }> {
    const child = childOf(args, setup)
    child.keepSpare(true)
    expect(child.spare).toBe(undefined)
    await child.ready()
    return { child, spare: await waiting(child) }
  }

  async function waiting(child: PythonChild): Promise<number> {
    child.keepSpare(true)
    await until(() => child.spare?.isWaiting === true)
    return child.spare?.pid ?? 0
  }

  async function kill(child: PythonChild): Promise<{ ms: number; pid: number }> {
    const killed = performance.now()
    process.kill(child.pid!, 'SIGKILL')
    await until(() => !child.isReady)
    const { pid } = await child.ready()
    return { ms: performance.now() - killed, pid }
  }

  it('takes the place of a process that dies, within a second; so does the next one', async () => {
    const { child, spare } = await withSpare()
    for (const expected of [spare, undefined]) {
      const { ms, pid } = await kill(child)
      expect(pid).toBe(expected ?? pid)
      expect(ms).toBeLessThan(1000)
      expect(latentsOf(await denoise(child).outcome)).toHaveLength(64)
      if (expected !== undefined) await waiting(child)
    }
  })

  it('is not there yet when a second one dies in a row: the imports are waited for, once', async () => {
    const { child } = await withSpare()
    await kill(child)
    expect(child.spare).toBe(undefined)
    const { ms } = await kill(child)
    expect(ms).toBeGreaterThan(1000)
    // One that is still at its imports is taken as it is.
    child.keepSpare(true)
    const pid = child.spare?.pid
    expect((await kill(child)).pid).toBe(pid)
    expect((await denoise(child).outcome).type).toBe('result')
  })

  it('goes when it is not wanted any more, and with its owner', async () => {
    const { child, spare } = await withSpare()
    child.keepSpare(false)
    expect(child.spare).toBe(undefined)
    await until(() => gone(spare))
    const [next, main] = [await waiting(child), child.pid!]
    await child.stop(5_000)
    expect([next, main].map(gone)).toEqual([true, true])
  })

  it('that dies by itself costs nothing, and no second one is tried at once', async () => {
    const { child, spare } = await withSpare()
    process.kill(spare, 'SIGKILL')
    await until(() => child.spare === undefined)
    child.keepSpare(true)
    expect(child.spare).toBe(undefined)
    expect((await denoise(child).outcome).type).toBe('result')
    expect((await kill(child)).pid).not.toBe(spare)
  })

  it('that is frozen when it is needed is given up', async () => {
    const { child, spare } = await withSpare({ stall: { heartbeatMs: 400 } })
    process.kill(spare, 'SIGSTOP')
    process.kill(child.pid!, 'SIGKILL')
    await until(() => !child.isReady)
    const { pid } = await child.ready()
    expect(pid).not.toBe(spare)
    expect(gone(spare)).toBe(true)
    expect((await denoise(child).outcome).type).toBe('result')
  }, 10_000)
})

describe('splitLines', () => {
  it('cuts on the byte, keeps characters whole, and drops an endless line once', () => {
    const lines: string[] = []
    let tooLong = 0
    const feed = splitLines(
      10,
      (line) => lines.push(line.toString('utf8')),
      () => tooLong++,
    )
    const bytes = Buffer.from('é🎨\n\nabcdefghi\nabcdefghijklmnop\nend\nrest')
    for (const byte of bytes) feed(Buffer.from([byte]))
    expect(lines).toEqual(['é🎨', '', 'abcdefghi', 'end'])
    expect(tooLong).toBe(1)
    const whole: string[] = []
    splitLines(
      10,
      (line) => whole.push(line.toString('utf8')),
      () => undefined,
    )(bytes)
    expect(whole).toEqual(lines)
  })
})
