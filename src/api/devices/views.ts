/** Devices as HTTP shows them: from the records that their workers last published. */
import { z } from 'zod'
import type { Caller } from '../../api-keys.ts'
import { Alert, Capabilities, Vitals } from '../../domains/device/status.ts'
import { deviceEventTypes, deviceStates, stateOf, type DeviceEvent } from '../../farm/device-events.ts'
import { sampleS, type DeviceSample } from '../../farm/history.ts'
import { ageOf, workerStatuses, type HeardWorker, type WorkerRecord } from '../../farm/record.ts'
import { iso, orNull, present, Time, viewOf } from '../view.ts'
import { presentRunning, RunningView } from '../workers/views.ts'

export const DeviceView = z
  .strictObject({
    id: z.string().meta({ example: '0123abcd-cuda-4f1e2d3c' }),
    name: z.string().meta({ description: 'what a person reads; several devices may have the same', example: 'cuda:0' }),
    model: z.string().meta({ description: 'the name its maker gave it' }),
    host: z.string(),
    worker: z.string(),
    epoch: z.string().meta({ description: 'what is held of the device ends with it' }),
    status: z.enum(workerStatuses).meta({ description: 'of its worker; only a ready one takes work' }),
    state: z.enum(['online', 'busy', 'degraded']),
    isDefault: z.boolean().meta({ description: 'of the caller' }),
    exactnessKey: z.string().meta({ description: 'devices with equal keys draw equal pictures' }),
    totalBytes: z.int().nullable(),
    usedBytes: z.int().nullable(),
    alerts: z.array(viewOf(Alert)),
    backend: z.enum(['cuda', 'd3d12', 'host']).meta({ description: 'through which its memory is held' }),
    implementation: z.enum(['addon', 'typescript']),
    reason: z.string().nullable().meta({ description: 'why not through the native addon, or not the device itself' }),
    uuid: z.string().nullable(),
    luid: z.string().nullable(),
    software: z.boolean().meta({ description: 'a CPU that plays a GPU' }),
    capabilities: viewOf(Capabilities),
    sampledAt: Time,
    ageS: z.number().meta({ description: 'seconds since its worker looked' }),
  })
  .meta({ id: 'Device' })

export const StatusView = z
  .strictObject({
    id: z.string(),
    state: z.enum(['online', 'busy', 'degraded']),
    alerts: z.array(viewOf(Alert)),
    vitals: Vitals.meta({ description: 'per cent, °C, W and MHz; null where nobody knows' }),
    totalBytes: z.int().nullable(),
    usedBytes: z.int().nullable(),
    running: z.array(RunningView),
    sampledAt: Time,
    ageS: z.number(),
  })
  .meta({ id: 'DeviceStatus' })

export const HistoryView = z
  .strictObject({
    device: z.string(),
    everyS: z.int(),
    samples: z.array(
      z.strictObject({
        at: Time,
        usedBytes: z.int().nullable(),
        ramUsedBytes: z.int().nullable().meta({ description: 'of its host' }),
        utilization: z.number().nullable().meta({ description: 'per cent' }),
        temperature: z.number().nullable().meta({ description: '°C' }),
        power: z.number().nullable().meta({ description: 'W' }),
      }),
    ),
  })
  .meta({ id: 'DeviceHistory' })

export const EventView = z
  .strictObject({
    id: z.int().meta({ description: 'grows by one from event to event' }),
    at: Time,
    type: z.enum(deviceEventTypes),
    device: z.string(),
    worker: z.string(),
    from: orNull(z.enum(deviceStates)).meta({ description: 'the state before; null when it was not here' }),
    alert: orNull(z.strictObject({ code: z.string(), message: z.string() })),
    note: z.string().nullable(),
  })
  .meta({ id: 'DeviceEvent' })

export const DeviceEventPage = z.strictObject({ events: z.array(EventView), newest: z.int() }).meta({ id: 'DeviceEventPage' })

export const DefaultView = z
  .strictObject({
    device: z.string().nullable().meta({ description: 'id; null: any device' }),
    isHere: z.boolean().meta({ description: 'whether a ready worker owns it now' }),
  })
  .meta({ id: 'DefaultDevice' })

export const SetDefaultDevice = z
  .strictObject({ device: z.string().min(1).max(200).nullable() })
  .meta({ id: 'SetDefaultDevice', example: { device: 'cuda:0' } })

/** The name of a device that people read; several devices may have the same. */
export const shortName = ({ device: { kind, index } }: Pick<WorkerRecord, 'device'>): string => `${kind}:${index}`

const sampled = (worker: HeardWorker) => ({
  sampledAt: iso(worker.report.sampledAt),
  ageS: ageOf(worker),
})

const presentAlerts = ({ report }: WorkerRecord) => report.alerts.map((alert) => present(Alert, alert))

export function presentDevice(worker: HeardWorker, own: string | null): z.infer<typeof DeviceView> {
  const { device, report } = worker
  const { backend, implementation, reason, uuid, luid, software, capabilities, figures } = report
  return {
    id: device.id,
    name: shortName(worker),
    model: device.name,
    host: worker.host,
    worker: worker.id,
    epoch: worker.epoch,
    status: worker.status,
    state: stateOf(worker),
    isDefault: device.id === own,
    exactnessKey: worker.exactnessKey,
    totalBytes: figures.total,
    usedBytes: figures.used,
    alerts: presentAlerts(worker),
    backend,
    implementation,
    reason,
    uuid,
    luid,
    software,
    capabilities: present(Capabilities, capabilities),
    ...sampled(worker),
  }
}

export function presentStatus(worker: HeardWorker, caller: Caller): z.infer<typeof StatusView> {
  const { device, report } = worker
  return {
    id: device.id,
    state: stateOf(worker),
    alerts: presentAlerts(worker),
    vitals: report.vitals,
    totalBytes: report.figures.total,
    usedBytes: report.figures.used,
    running: presentRunning(worker, caller),
    ...sampled(worker),
  }
}

export const presentHistory = (device: string, samples: readonly DeviceSample[]): z.infer<typeof HistoryView> => ({
  device,
  everyS: sampleS,
  samples: samples.map(({ at, ...figures }) => ({ at: iso(at), ...figures })),
})

export const presentEvent = (event: DeviceEvent): z.infer<typeof EventView> => ({ ...event, at: iso(event.at) })
