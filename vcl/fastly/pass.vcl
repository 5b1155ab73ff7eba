# @scope: pass
# A passed request is one client's own, so it keeps what tells who asked. It
# must still not carry our mark, and a passed stream is as long as any other.

unset bereq.http.Headwater-Path;

if (req.http.Headwater-Path) {
  set bereq.between_bytes_timeout = 20s;
  set bereq.first_byte_timeout = 30s;
}
