/** `darkroom audit`: what callers with the scope `operate` have changed. */
import { connectApi, type ConnectionOptions } from './connection.ts'
import { say, sayJson, table } from './terminal.ts'

export async function audit({ json, limit, ...options }: ConnectionOptions & { json?: boolean; limit?: number }): Promise<void> {
  const entries = await (await connectApi(options)).audit(limit)
  if (json) return sayJson(entries)
  if (entries.length === 0) return say('nothing was changed')
  const rows = entries.map(({ at, keyId, action, requestId }) => [at, keyId ?? 'local', action, requestId ?? ''])
  say(table(['WHEN', 'KEY', 'ACTION', 'REQUEST'], rows))
}
