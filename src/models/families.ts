/** Families of models: each is loaded and computed by one class of `python/darkroom/families/`, under this name. */
export const families = ['sd1'] as const
export type Family = (typeof families)[number]
