/** What we use of fs-native-extensions, which brings no types. */
declare module 'fs-native-extensions' {
  /** Locks the whole file of an open descriptor; false when another open file has locked it. */
  export function tryLock(fd: number): boolean
}
