/**
 * Memory of a device, held through the native addon. Owns: allocations, copies, what they press on. Never touches:
 * models, pictures, sessions. Everything here lives in one worker and ends with its device epoch, so every step is a
 * command to that worker.
 */
import { allocate } from './allocate.ts'
import { checksum } from './checksum.ts'
import { copy } from './copy.ts'
import { defragment } from './defragment.ts'
import { read } from './read.ts'
import { release } from './release.ts'
import { renew } from './renew.ts'
import { write } from './write.ts'

export { memoryError } from './errors.ts'

export const memory = {
  'memory.allocate': allocate,
  'memory.release': release,
  'memory.renew': renew,
  'memory.copy': copy,
  'memory.checksum': checksum,
  'memory.read': read,
  'memory.write': write,
  'memory.defragment': defragment,
}
