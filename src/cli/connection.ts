/** Where the API is, for commands that are its clients. */
import { askHolder } from '../../host/lock.mjs'
import { DarkroomClient } from '../client/index.ts'
import { readConfig } from '../config.ts'

export interface ConnectionOptions {
  url?: string
}

/**
 * A client of the API at `--url`, else `DARKROOM_URL`, else of the `darkroom up` on this data folder, else at the
 * configured port.
 * @throws Problem `api.unreachable` at once when there is no answer
 */
export async function connectApi({ url }: ConnectionOptions): Promise<DarkroomClient> {
  const { DARKROOM_URL: named, DARKROOM_KEY: key } = process.env
  const config = readConfig()
  const running = url ?? named ?? ((await askHolder(config.data, 'up'))?.['url'] as string | undefined)
  const client = new DarkroomClient({ url: running ?? `http://127.0.0.1:${config.port}`, ...(key !== undefined && { key }) })
  await client.health()
  return client
}
