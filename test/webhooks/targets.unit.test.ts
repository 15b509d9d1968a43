import { describe, expect, it } from 'vitest'
import { readConfig } from '../../src/config.ts'
import { addressOf, targetOf, type Allowed } from '../../src/webhooks/targets.ts'

const allowed = (webhookHosts: string[], webhookNets: string[] = []): Allowed => ({ webhookHosts, webhookNets })
const any = allowed(['*'])
const to =
  (...addresses: string[]) =>
  () =>
    Promise.resolve(addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 })))

describe('a target', () => {
  it.each(['https://example.org/hook', 'https://example.org:8443/a?b=c', 'https://93.184.216.34/', 'https://[2606:2800:220:1::1]/'])(
    '%s may be called where every host is',
    (url) => expect(targetOf(url, any).href).toBe(new URL(url).href),
  )

  it.each([
    ['no url', 'is no URL'],
    ['ftp://example.org/', 'neither https nor http'],
    ['file:///etc/passwd', 'neither https nor http'],
    ['https://ann:secret@example.org/', 'carries a password'],
    ['https://127.0.0.1/', 'which is not public'],
    ['https://0x7f.1/', 'which is not public'],
    ['https://2130706433/', 'which is not public'],
    ['https://10.1.2.3/', 'which is not public'],
    ['https://169.254.169.254/latest/meta-data', 'which is not public'],
    ['https://100.64.0.1/', 'which is not public'],
    ['https://[::1]/', 'which is not public'],
    ['https://[::ffff:127.0.0.1]/', 'which is not public'],
    ['https://[64:ff9b::a00:1]/', 'which is not public'],
    ['https://[fd00::1]/', 'which is not public'],
    ['http://93.184.216.34/', 'only https goes there'],
  ])('%s is refused: %s', (url, why) => {
    expect(() => targetOf(url, any)).toThrow(expect.objectContaining({ code: 'webhook.refused', field: 'url' }) as Error)
    expect(() => targetOf(url, any)).toThrow(why)
  })

  it('must be on a host that the operator allows', () => {
    const some = allowed(['hooks.example.org', '*.Studio.example'])
    expect(targetOf('https://HOOKS.example.org/', some).host).toBe('hooks.example.org')
    expect(targetOf('https://a.b.studio.example/', some).host).toBe('a.b.studio.example')
    for (const url of ['https://studio.example/', 'https://evilstudio.example/', 'https://hooks.example.org.evil.example/'])
      expect(() => targetOf(url, some)).toThrow('is not on a host of DARKROOM_WEBHOOK_HOSTS')
    expect(() => targetOf('https://example.org/', allowed([]))).toThrow('webhooks are off')
  })

  it('in a private network that the operator names may be called, by http too', () => {
    const nets = allowed(['*'], ['10.0.0.0/8', 'fd00::/8'])
    for (const url of ['http://10.1.2.3:9000/', 'http://[fd00::1]/', 'https://[::ffff:10.1.2.3]/'])
      expect(() => targetOf(url, nets)).not.toThrow()
    expect(() => targetOf('http://11.1.2.3/', nets)).toThrow('only https goes there')
    expect(() => targetOf('http://192.168.1.1/', nets)).toThrow('which is not public')
  })
})

describe('its address', () => {
  const url = new URL('https://example.org/')

  it('is the one that its name resolves to', async () => {
    expect(await addressOf(url, any, to('93.184.216.34', '2606:2800:220:1::1'))).toEqual({ address: '93.184.216.34', family: 4 })
  })

  it.each([[['127.0.0.1']], [['93.184.216.34', '10.0.0.1']], [['::ffff:192.168.0.1']]])(
    'is refused when it resolves to %s',
    async (found) => {
      await expect(addressOf(url, any, to(...found))).rejects.toMatchObject({ code: 'webhook.refused' })
    },
  )
})

it('networks of the settings must be networks', () => {
  expect(readConfig({ DARKROOM_WEBHOOK_NETS: '10.0.0.0/8, fd00::/8' }).webhookNets).toEqual(['10.0.0.0/8', 'fd00::/8'])
  expect(() => readConfig({ DARKROOM_WEBHOOK_NETS: '10.0.0.0' })).toThrow('must be networks like 10.0.0.0/8')
})
