/** What a worker publishes of its device: the parts of the domains `device` and `memory` in one. */
import { z } from 'zod'
import { DeviceStatus } from './device/schema.ts'
import { MemoryReport } from './memory/schema.ts'

export const DeviceReport = z.strictObject({ ...DeviceStatus.shape, ...MemoryReport.shape })
export type DeviceReport = z.infer<typeof DeviceReport>
