/** Where the API is, for commands that are its clients. */
import { askHolder } from '../../host/lock.mjs'
import { DarkroomClient } from '../client/index.ts'
import { readConfig } from '../config.ts'
import { configError } from '../errors.ts'

export interface ConnectionOptions {
  url?: string
}

/**
 * A client of the API at `--url`, else `DARKROOM_URL`, else of the `darkroom up` on this data folder, else at the
 * configured port. A key goes only to an API that the user has named or runs: whoever else listens on that port would
 * learn it.
 * @throws Problem `api.unreachable` at once when there is no answer, `api.not_darkroom` when something else answers
 * @throws DarkroomError `config.invalid` for what is no address, and for a key without an address
 * @throws BadPlace when another user could have put the address there
 */
export async function connectApi({ url }: ConnectionOptions): Promise<DarkroomClient> {
  const { DARKROOM_URL: named, DARKROOM_KEY: key } = process.env
  const config = readConfig()
  const running = url ?? named ?? ((await askHolder(config.data, 'up'))?.['url'] as string | undefined)
  if (running !== undefined) checkAddress(running, url === undefined ? 'DARKROOM_URL' : '--url')
  if (running === undefined && key !== undefined) {
    const problem = `no \`darkroom up\` of this user runs on ${config.data}, and nobody says where the API is: anybody may listen on port ${config.port}`
    throw configError('invalid', `${problem}, so DARKROOM_KEY is not sent there`, {
      field: 'DARKROOM_URL',
      remedy: 'Name the API with --url or DARKROOM_URL, or start `npm start`.',
    })
  }
  const client = new DarkroomClient({ url: running ?? `http://127.0.0.1:${config.port}`, ...(key !== undefined && { key }) })
  await client.health()
  return client
}

function checkAddress(address: string, from: string): void {
  const { protocol, username, password, search, hash } = URL.canParse(address) ? new URL(address) : new URL('none:')
  if (/^https?:$/.test(protocol) && !username && !password && !search && !hash) return
  throw configError('invalid', `${from} is no address of an API: ${JSON.stringify(address)}`, {
    field: from,
    remedy: 'Give it like http://127.0.0.1:4780; a key goes into DARKROOM_KEY.',
  })
}
