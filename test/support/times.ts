/** The engine's times for a farm of a test: those of the product, or all of them shorter, so that what waits for a lease waits less. */
import { productTimes, type Times } from '../../src/engine/times.ts'

/** For most farms: a lease of two seconds, which a busy machine can still keep. */
export const quick = 0.4

export const timesAt = (scale: number): Times =>
  Object.fromEntries(Object.entries(productTimes).map(([name, ms]) => [name, Math.round(Number(ms) * scale)])) as unknown as Times
