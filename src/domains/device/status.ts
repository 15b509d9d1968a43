/** A device as its worker publishes it; unknown figures are null. */
import { z } from 'zod'
import type * as Native from '../device-memory.ts'
import { Count, Instant } from '../values.ts'

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
  limits: PictureLimits,
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
