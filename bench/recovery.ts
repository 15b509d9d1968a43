/**
 * `worker.recoveryS`, `worker.recoveryMaxS`: from SIGKILL of a worker in the middle of denoise until another worker has
 * the step.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { productTimes } from '../src/engine/times.ts'
import { startFarm } from '../test/support/farm.ts'
import { figure, type Benchmark } from './figure.ts'
import { median, quantile, range } from './statistics.ts'

const kills = 5

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
