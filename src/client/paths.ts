/** Paths of the HTTP interface. */
export const deviceOf = (id: string): string => `/v1/devices/${encodeURIComponent(id)}`
/** With what its query says, as its kind. */
export const modelOf = (id: string, query: Record<string, string | number | undefined> = {}, part?: string): string =>
  `/v1/models/${encodeURIComponent(id)}${part === undefined ? '' : `/${part}`}${queryOf({ ...query })}`
export const allocationOf = (id: string): string => `/v1/memory/allocations/${encodeURIComponent(id)}`

export function queryOf(fields: Record<string, string | number | undefined>): string {
  const given = Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)] as [string, string]]))
  return given.length === 0 ? '' : `?${new URLSearchParams(given).toString()}`
}

export const pathOf = (id: string): string => `/v1/sessions/${encodeURIComponent(id)}`
