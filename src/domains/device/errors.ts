import { defineErrors } from '../../errors.ts'

export const errors = defineErrors({
  'device.unknown': { class: 'permanent', remedy: 'GET /v1/devices lists the devices that have a worker now.' },
  'device.not_ready': { class: 'permanent', remedy: 'Its worker is draining, overloaded or hangs; ask again, or use another device.' },
  'device.unavailable': { class: 'permanent', remedy: '`darkroom doctor` says which devices are here, and why others are not.' },
})
