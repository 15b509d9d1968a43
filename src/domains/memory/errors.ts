import { defineErrors } from '../../errors.ts'

export const memoryError = defineErrors('memory', {
  exhausted: { class: 'resource', remedy: 'Draw a smaller picture, or free memory on the device.' },
  reserved: { class: 'resource', remedy: 'Others hold or wait for it; try again in a moment, or use another device.' },
  invalid: { class: 'permanent', remedy: 'Correct the field named above; sizes and offsets are whole numbers of bytes.' },
  out_of_range: { class: 'permanent', remedy: 'Keep offset and size inside the allocation, and two ranges in one apart.' },
  unknown: { class: 'permanent', remedy: 'Allocate again; allocations go with their release, their owner or their time.' },
  elsewhere: { class: 'permanent', remedy: 'Use a transfer: a copy stays within one device.' },
  cancelled: { class: 'cancelled', remedy: 'Copy again if it was not meant to end; the target holds old and new bytes.' },
  corrupt: { class: 'transient', remedy: 'Copy again; if it comes back, the device or the RAM of this machine is broken.' },
  closed: { class: 'transient', remedy: 'The worker is ending; ask again when it is back.' },
  refused: { class: 'transient', remedy: 'The driver refused, for the reason above; look at its log.' },
})
