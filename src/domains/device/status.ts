/** A device as its worker publishes it; unknown figures are null. */
import { z } from 'zod'
import type * as Native from '../device-memory.ts'
import { schedules } from '../samplers.ts'
import { Count, Instant, ModelName, PicturePin, Sampler } from '../values.ts'

export const Vitals = z.strictObject({
  utilization: z.number().nullable(),
  memoryUtilization: z.number().nullable(),
  temperature: z.number().nullable(),
  power: z.number().nullable(),
  powerLimit: z.number().nullable(),
  clock: z.number().nullable(),
  memoryClock: z.number().nullable(),
  source: z.string(),
}) satisfies z.ZodType<Native.Vitals>

/**
 * The largest picture that is drawn on a device. What a picture costs goes by its latent cells, each as many pixels
 * square as the model's scale says, 8 in most; so a limit in cells is one in pixels for each model.
 */
export const PictureLimits = z
  .strictObject({
    cells: Count.meta({ description: 'latent cells; a cell is 8 × 8 pixels in most models' }),
    cellSteps: Count.meta({ description: 'latent cells times denoise steps' }),
  })
  .meta({ id: 'PictureLimits' })
export type PictureLimits = z.infer<typeof PictureLimits>

/** How a family of models is drawn on a device. */
export const FamilyCapabilities = z
  .strictObject({
    family: z.string(),
    dtype: z.string().meta({ description: 'precision of the network that draws' }),
    samplers: z.array(Sampler),
    schedules: z.array(z.enum(schedules)),
    graphs: z.boolean().meta({ description: 'whether calls are replays of a CUDA graph, with the same bytes' }),
  })
  .meta({ id: 'FamilyCapabilities' })
export type FamilyCapabilities = z.infer<typeof FamilyCapabilities>

/** What the class `fast` means on a device. */
export const FastSupport = z
  .strictObject({
    compiles: z.boolean().meta({ description: 'whether blocks of networks are compiled' }),
    why: z.string().nullable().meta({ description: 'why not; null where they are' }),
    uncached: z.string().nullable().meta({ description: 'why what was compiled is not kept for the next process; null where it is' }),
    stepCache: z.array(z.string()).meta({ description: 'families whose pictures may have a step cache' }),
  })
  .meta({ id: 'FastSupport' })
export type FastSupport = z.infer<typeof FastSupport>

/** How fast pictures of one shape were drawn, the last time that one was. */
export const MeasuredSpeed = z
  .strictObject({
    ...PicturePin.pick({ width: true, height: true }).shape,
    model: ModelName,
    family: z.string(),
    rows: z.int().meta({ description: 'of a call: 2 where a negative prompt counts, else 1' }),
    callsPerS: z.number().meta({ description: 'calls of the network a second; most samplers make one a step' }),
    peakBytes: Count.nullable().meta({ description: 'the most that it took of the device beside the weights' }),
    measuredAt: Instant,
  })
  .meta({ id: 'MeasuredSpeed' })
export type MeasuredSpeed = z.infer<typeof MeasuredSpeed>

export const Capabilities = z.strictObject({
  computeCapability: z.string().nullable(),
  featureLevel: z.string().nullable(),
  driver: z.string().nullable(),
  pci: z.string().nullable(),
  unified: z.boolean().nullable(),
  /** Precision types that its Python child computes in. */
  dtypes: z.array(z.string()),
  /** Attention backends. */
  attention: z.array(z.string()),
  /** Families of models that its worker can run. */
  families: z.array(z.string()),
  /** Of those of them whose models are here. */
  drawing: z.array(FamilyCapabilities),
  /** The newest, one a model and shape. */
  measured: z.array(MeasuredSpeed),
  limits: PictureLimits,
  fast: FastSupport,
})
export type Capabilities = z.infer<typeof Capabilities>

export const alertCodes = ['device.hot', 'device.errors', 'device.lost', 'memory.pressure', 'memory.leak', 'native.missing'] as const
export const Alert = z
  .strictObject({
    code: z.enum(alertCodes),
    message: z.string(),
    /** By the worker's clock. */
    since: Instant,
  })
  .meta({ id: 'DeviceAlert' })
export type Alert = z.infer<typeof Alert>

/** A device as the worker that owns it sees it. */
export const DeviceStatus = z.strictObject({
  /**
   * Through which its memory is held. `host` under a worker of another kind: the addon does not reach the device,
   * `reason` says why.
   */
  backend: z.enum(['cuda', 'd3d12', 'host']),
  implementation: z.enum(['addon', 'typescript']),
  /** Why not through the addon, or not the device itself; null when all is as it should be. */
  reason: z.string().nullable(),
  key: z.string(),
  uuid: z.string().nullable(),
  luid: z.string().nullable(),
  software: z.boolean(),
  capabilities: Capabilities,
  vitals: Vitals,
  /** `degraded`: it works, with the alerts that say what is wrong. */
  state: z.enum(['online', 'busy', 'degraded']),
  alerts: z.array(Alert),
  /** When these figures were taken. */
  sampledAt: Instant,
})
export type DeviceStatus = z.infer<typeof DeviceStatus>
