/**
 * The device a worker owns. Owns: what it can do, how it is, its caches. Never touches: allocations, models on disk,
 * sessions.
 */
import { optimize } from './optimize.ts'
import { refresh } from './refresh.ts'

export { deviceError } from './errors.ts'

export const device = { 'device.optimize': optimize, 'device.refresh': refresh }
