# @scope: init
# The one place for settings. A table, because every other file here is pasted
# into a subroutine, where a constant could not be seen from the next one.

table headwater {
  # How many lanes the wave of reconnects at a boundary is split into, 2 to 64;
  # 1 is none. Each lane costs the origin a stream of its own per channel.
  "lanes": "1",
}
