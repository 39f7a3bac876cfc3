import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.windowing.ProcessWindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

public class Temperature {
    public static class Reading {
        public String device;
        public double level;
        public long ts;
    }

    public static class Stats {
        public long n;
        public double sum, max = Double.NEGATIVE_INFINITY;
    }

    public record Minute(String device, long start, long n, double mean, double max) {}

    static final OutputTag<Reading> LATE = new OutputTag<>("late") {};

    static class Fold implements AggregateFunction<Reading, Stats, Stats> {
        public Stats createAccumulator() { return new Stats(); }

        public Stats add(Reading r, Stats s) {
            s.n++;
            s.sum += r.level;
            s.max = Math.max(s.max, r.level);
            return s;
        }

        public Stats getResult(Stats s) { return s; }

        public Stats merge(Stats a, Stats b) {
            a.n += b.n;
            a.sum += b.sum;
            a.max = Math.max(a.max, b.max);
            return a;
        }
    }

    static class ToMinute extends ProcessWindowFunction<Stats, Minute, String, TimeWindow> {
        @Override
        public void process(String device, Context c, Iterable<Stats> in, Collector<Minute> out) {
            Stats s = in.iterator().next();
            out.collect(new Minute(device, c.window().getStart(), s.n, s.sum / s.n, s.max));
        }
    }

    static void build(StreamExecutionEnvironment env, Source<Reading, ?, ?> source, Sink<Reading> signals, Sink<Reading> late, Sink<Minute> main) {
        WatermarkStrategy<Reading> time = WatermarkStrategy.<Reading>forBoundedOutOfOrderness(Duration.ofSeconds(5))
                .withTimestampAssigner((r, t) -> r.ts);
        KeyedStream<Reading, String> keyed = env.fromSource(source, time, "readings").keyBy(r -> r.device);
        keyed.filter(r -> r.level > 90).sinkTo(signals);
        SingleOutputStreamOperator<Minute> minutes = keyed
                .window(TumblingEventTimeWindows.of(Duration.ofMinutes(1)))
                .allowedLateness(Duration.ofSeconds(30))
                .sideOutputLateData(LATE)
                .aggregate(new Fold(), new ToMinute());
        minutes.getSideOutput(LATE).sinkTo(late);
        minutes.sinkTo(main);
    }
}
