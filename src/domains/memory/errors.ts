import { defineErrors } from '../../errors.ts'

export const memoryError = defineErrors('memory', {
  exhausted: { class: 'resource', remedy: 'Draw a smaller picture, or free memory on the device.' },
  reserved: { class: 'resource', remedy: 'Others hold the memory or wait for it; try again in a moment, or use another device.' },
  quota: {
    class: 'resource',
    remedy: 'Release allocations of this key, wait until some have expired, or have DARKROOM_KEY_MEMORY raised.',
  },
  invalid: { class: 'permanent', remedy: 'Correct the field named above; sizes and offsets are whole numbers of bytes.' },
  out_of_range: {
    class: 'permanent',
    remedy: 'Keep offset and size inside the allocation; two ranges of one allocation must not overlap.',
  },
  unknown: {
    class: 'permanent',
    remedy: 'Allocate again; an allocation ends with its release, its owner, its time to live or its worker.',
  },
  elsewhere: { class: 'permanent', remedy: 'Use a transfer: a copy stays within one device.' },
  cancelled: { class: 'cancelled', remedy: 'Copy again if the cancel was not intended; the target holds old and new bytes.' },
  corrupt: { class: 'transient', remedy: 'Copy again; if it happens again, the device or the RAM of this machine is faulty.' },
  closed: { class: 'transient', remedy: 'The worker is ending; submit again when it is back.' },
  refused: { class: 'transient', remedy: 'Read the reason of the driver above, and its log.' },
})
