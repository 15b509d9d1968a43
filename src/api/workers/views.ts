/** Workers as HTTP shows them: the records that they publish. */
import { z } from 'zod'
import type { Caller } from '../../api-keys.ts'
import { workerStatuses, type HeardWorker, type WorkerRecord } from '../../farm/record.ts'
import { seesAll } from '../policy.ts'
import { iso, Time } from '../view.ts'

const Anything = z.record(z.string(), z.unknown())

export const RunningView = z.strictObject({
  key: z.string().nullable().meta({ description: 'null for the work of another API key' }),
  step: z.string(),
  session: z.string().nullable(),
  since: Time,
})

/**
 * The steps that run on a worker. A caller who does not see all learns that a step runs there, not of which session.
 */
export const presentRunning = (worker: WorkerRecord, caller: Caller): z.infer<typeof RunningView>[] =>
  worker.running.map(({ key, step, session, since }) => ({
    key: seesAll(caller) ? key : null,
    step,
    session: seesAll(caller) ? session : null,
    since: iso(since),
  }))

export const WorkerView = z
  .strictObject({
    id: z.string(),
    host: z.string(),
    pid: z.int(),
    epoch: z.string(),
    device: z.strictObject({ id: z.string(), kind: z.string(), name: z.string(), index: z.int(), totalBytes: z.int().nullable() }),
    exactnessKey: z.string(),
    hardware: Anything,
    build: Anything,
    settings: Anything,
    status: z.enum(workerStatuses),
    shelf: z.string().meta({ description: 'the model folders of its host, as GET /v1/models names them' }),
    resident: z.array(z.string()),
    running: z.array(RunningView),
    native: z
      .strictObject({
        implementation: z.enum(['addon', 'typescript']),
        backend: z.enum(['cuda', 'd3d12', 'host']),
        reason: z.string().nullable(),
      })
      .meta({ description: 'through what its device memory is held, and why not through the native addon' }),
    lanes: z.strictObject({ gpu: z.int(), host: z.int() }),
    childPid: z.int().nullable(),
    logLinesDropped: z.int().meta({ description: 'lines of its log that it could not write' }),
    sparePid: z.int().nullable().meta({ description: 'of the spare Python child, which replaces one that dies; null without one' }),
    startedAt: Time,
    seenAt: Time,
    ageS: z.number().meta({ description: 'seconds since the worker published this' }),
  })
  .meta({ id: 'Worker' })

export function presentWorker(worker: HeardWorker, caller: Caller): z.infer<typeof WorkerView> {
  const { implementation, backend, reason } = worker.report
  return {
    id: worker.id,
    host: worker.host,
    pid: worker.pid,
    epoch: worker.epoch,
    device: worker.device,
    exactnessKey: worker.exactnessKey,
    hardware: worker.hardware,
    build: worker.build,
    settings: worker.settings,
    status: worker.status,
    shelf: worker.shelf,
    resident: worker.resident,
    running: presentRunning(worker, caller),
    native: { implementation, backend, reason },
    lanes: worker.lanes,
    childPid: worker.childPid,
    logLinesDropped: worker.logLinesDropped,
    sparePid: worker.sparePid,
    startedAt: iso(worker.startedAt),
    seenAt: iso(worker.seenAt),
    ageS: worker.ageMs / 1000,
  }
}
