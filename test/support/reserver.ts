/** Reserves the slot of a device, says so, and keeps it until it is killed. Arguments: Redis URL, device id. */
import { reserve } from '../../src/farm/reservations.ts'
import { connect } from '../../src/redis.ts'

const [url = '', device = ''] = process.argv.slice(2)
const reservation = await reserve(connect(url, { patience: 'wait' }), {
  device,
  worker: 'killed',
  owner: `holder-${process.pid}`,
  need: { slots: 1, bytes: 0, model: null, modelBytes: 0, priority: 5 },
  capacity: () => ({ slots: 1, bytes: null }),
  waitMs: 0,
})
setInterval(() => void reservation.renew(), 1000)
process.stdout.write('reserved\n')
