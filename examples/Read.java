// Prints the data of each event of a stream, over the ends of segments, faults and restarts, until
// its channels have ended:
//
//   java examples/Read.java 'http://127.0.0.1:8080/channels/greetings?after=0-0'

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

class Read {
  // A quiet stream has a comment every five seconds (--heartbeat).
  static final int SILENCE_MAX_S = 15;
  static final Map<String, String> headers = new HashMap<>(Map.of("Accept", "text/event-stream"));
  static long retryMs = 3000;

  public static void main(String[] arguments) throws InterruptedException {
    var client = HttpClient.newHttpClient();
    // HttpClient has no time limit for a body, so another thread reads the lines.
    var reader = Executors.newSingleThreadExecutor();
    for (;; Thread.sleep(retryMs)) {
      var request = HttpRequest.newBuilder(URI.create(arguments[0])).timeout(Duration.ofSeconds(SILENCE_MAX_S));
      headers.forEach(request::header);
      try {
        var answer = client.send(request.build(), BodyHandlers.ofInputStream());
        if (answer.statusCode() == 204) System.exit(0); // All channels have ended.
        if (answer.statusCode() / 100 == 4) throw new IllegalArgumentException(answer.toString());
        try (var body = answer.body()) {
          var lines = new BufferedReader(new InputStreamReader(body, StandardCharsets.UTF_8));
          var block = new HashMap<String, String>();
          for (String line; (line = reader.submit(lines::readLine).get(SILENCE_MAX_S, TimeUnit.SECONDS)) != null;) {
            var field = line.split(": ?", 2);
            if (!line.isEmpty()) block.merge(field[0], field[1], (one, next) -> one + "\n" + next);
            else handle(block);
          }
        }
      } catch (IOException | ExecutionException | TimeoutException fault) {
        System.err.println(fault);
      }
    }
  }

  // The block is complete. The id of a block that a fault cuts short does not count.
  static void handle(Map<String, String> block) {
    if (block.containsKey("id")) headers.put("Last-Event-ID", block.get("id"));
    if (block.containsKey("retry")) retryMs = Long.parseLong(block.get("retry"));
    var type = block.getOrDefault("event", "message");
    if (type.matches("gap|end|shed")) System.err.println(type + " " + block.get("data"));
    else if (!type.equals("segment")) System.out.println(block.get("data"));
    block.clear();
  }
}
