/**
 * `worker.recoveryS`, `worker.recoveryMaxS`: from SIGKILL of a worker in the middle of denoise until another worker has
 * the step.
 *
 * `worker.childRecoveryS`, `worker.childRecoveryMaxS`: from SIGKILL of the product's own Python child, in the middle of
 * denoise on the only worker there is, until its replacement has done a call. Its spare takes the place; what it takes
 * without one is said on the way.
 *
 * `worker.soleRecoveryS`, `worker.soleRecoveryMaxS`: from SIGKILL of the only worker of a `darkroom up`, in the middle
 * of denoise, until the one that stood by has done a call; what it takes without one is said on the way. On the device
 * of `DARKROOM_DEVICE`, with darkroom-tiny.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { program } from '../src/cli/up.ts'
import { DarkroomClient } from '../src/client/index.ts'
import { root } from '../src/config.ts'
import { productTimes } from '../src/engine/times.ts'
import { startSupervisor } from '../src/supervisor.ts'
import { startFarm } from '../test/support/farm.ts'
import { eventually } from '../test/support/wait.ts'
import { figure, type Benchmark } from './figure.ts'
import { median, quantile, range } from './statistics.ts'

const kills = 5
const childKillCount = 3
/** How long one import of torch may take on a busy machine, ms. */
const childPatienceMs = 120_000

export const recovery: Benchmark = {
  figures: ['worker.recoveryS', 'worker.recoveryMaxS'],
  async measure(say) {
    await using farm = await startFarm({ times: productTimes, workers: 2, fake: ['--call-ms', '100'] })
    const seconds: number[] = []
    for (let i = 0; i < kills; i++) {
      const id = await farm.submit({ steps: 200, seed: i })
      const { worker, stepKey } = await farm.untilCall(id, 3)
      // Spread over the time between two renewals: how much of the lease is left decides how long it takes.
      await delay((productTimes.renewMs * i) / kills)
      const killedAt = Date.now()
      await worker.kill()
      const again = await farm.event(id, 'step.started', 'inference.denoise', 2)
      if (again.key !== stepKey || again.worker === worker.ready)
        throw new Error(`void: ${JSON.stringify(again)} is not that step elsewhere`)
      // It runs, it is not only taken: the child goes on from the checkpoint and makes one of its own.
      const { call } = again['checkpoint'] as { call: number }
      await farm.untilCall(id, call + 1)
      // The history's clock is Redis', which is this machine's.
      seconds.push((again.at - killedAt) / 1000)
      await farm.control(id, 'cancel')
      await farm.addWorker()
    }
    say(`${kills} kills, ${range(seconds)} s: ${seconds.map((s) => s.toFixed(1)).join(' ')}`)
    return [
      figure('worker.recoveryS', median(seconds), 's', { atMost: 10 }),
      figure('worker.recoveryMaxS', quantile(seconds, 1), 's', { atMost: 10 }),
    ]
  },
}

async function childKills(settings: Record<string, string>, hasSpare: boolean): Promise<number[]> {
  await using farm = await startFarm({ times: productTimes, real: true, settings })
  const seconds: number[] = []
  for (let i = 0; i < childKillCount; i++) {
    await eventually(
      'a child, and its spare',
      async () => {
        const [record] = await farm.records()
        return record !== undefined && record.childPid !== null && (record.sparePid !== null) === hasSpare
      },
      childPatienceMs,
    )
    const id = await farm.submit({ steps: 200, seed: i, width: 128, height: 128 })
    await farm.untilCall(id, 3)
    const [record] = await farm.records()
    const killedAt = performance.now()
    process.kill(record?.childPid ?? 0, 'SIGKILL')
    const again = await farm.event(id, 'step.started', 'inference.denoise', 2, childPatienceMs)
    await farm.untilCall(id, (again['checkpoint'] as { call: number }).call + 1, childPatienceMs)
    seconds.push((performance.now() - killedAt) / 1000)
    await farm.control(id, 'cancel')
  }
  return seconds
}

export const childRecovery: Benchmark = {
  figures: ['worker.childRecoveryS', 'worker.childRecoveryMaxS'],
  isLong: true,
  async measure(say) {
    const without = await childKills({ DARKROOM_SPARE_MB: '0' }, false)
    say(`${childKillCount} kills without a spare, ${range(without)} s: ${without.map((s) => s.toFixed(1)).join(' ')}`)
    const seconds = await childKills({ DARKROOM_SPARE_MB: '1' }, true)
    say(`${childKillCount} kills with a spare, ${range(seconds)} s: ${seconds.map((s) => s.toFixed(1)).join(' ')}`)
    return [
      figure('worker.childRecoveryS', median(seconds), 's', { atMost: 10 }),
      figure('worker.childRecoveryMaxS', quantile(seconds, 1), 's', { atMost: 10 }),
    ]
  },
}

/** How long a worker is left alone after its start, so that the one that stands by has its imports done, ms. */
const settleMs = 20_000

/** The highest call of a denoise step so far, and how many attempts it had. */
async function seenOf(client: DarkroomClient, id: string): Promise<{ call: number; attempts: number }> {
  const { steps } = await client.receipt(id)
  const attempts = steps.find(({ step }) => step === 'inference.denoise')?.attempts.length ?? 0
  return { call: (await client.session(id)).progress?.call ?? 0, attempts }
}

async function soleKills(standby: 'always' | 'never'): Promise<number[]> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'))
  const env = {
    ...process.env,
    DARKROOM_DATA: folder,
    DARKROOM_MODELS: join(root, 'models'),
    DARKROOM_PORT: '0',
    DARKROOM_STANDBY: standby,
  }
  const supervisor = await startSupervisor({ env, program, workers: 1 })
  const seconds: number[] = []
  try {
    const client = new DarkroomClient({ url: supervisor.url })
    const [worker] = supervisor.workers
    await worker?.ready
    for (let i = 0; i < childKillCount; i++) {
      await delay(settleMs)
      const { id } = await client.generate({ prompt: 'a red circle', steps: 200, seed: i, width: 512, height: 512 })
      const before = await eventually(
        'a call',
        async () => ((await seenOf(client, id)).call >= 3 ? seenOf(client, id) : undefined),
        childPatienceMs,
      )
      process.kill(worker?.pid ?? 0, 'SIGKILL')
      const killedAt = performance.now()
      await eventually(
        'a call after it',
        async () => {
          const { attempts, call } = await seenOf(client, id)
          return attempts > before.attempts && call > before.call
        },
        childPatienceMs,
      )
      seconds.push((performance.now() - killedAt) / 1000)
      await client.control(id, 'cancel')
    }
    return seconds
  } finally {
    await supervisor.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

export const soleRecovery: Benchmark = {
  figures: ['worker.soleRecoveryS', 'worker.soleRecoveryMaxS'],
  isLong: true,
  async measure(say) {
    const without = await soleKills('never')
    say(`${childKillCount} kills with none that stands by, ${range(without)} s: ${without.map((s) => s.toFixed(1)).join(' ')}`)
    const seconds = await soleKills('always')
    say(`${childKillCount} kills with one, ${range(seconds)} s: ${seconds.map((s) => s.toFixed(1)).join(' ')}`)
    return [
      figure('worker.soleRecoveryS', median(seconds), 's', { atMost: 10 }),
      figure('worker.soleRecoveryMaxS', quantile(seconds, 1), 's', { atMost: 10 }),
    ]
  },
}
