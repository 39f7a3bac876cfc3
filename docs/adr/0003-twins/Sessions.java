import java.time.Duration;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

public class Sessions {
    public static class Click {
        public String user;
        public String page;
        public long ts;
    }

    public static class Session {
        public String user;
        public long first, last;
        public int clicks;
    }

    static class Detect extends KeyedProcessFunction<String, Click, Session> {
        private final long gap;
        private transient ValueState<Session> open;
        private transient MapState<Long, Integer> due;

        Detect(long gap) { this.gap = gap; }

        @Override
        public void open(OpenContext c) {
            open = getRuntimeContext().getState(new ValueStateDescriptor<>("open", Session.class));
            due = getRuntimeContext().getMapState(new MapStateDescriptor<>("due", Long.class, Integer.class));
        }

        @Override
        public void processElement(Click click, Context c, Collector<Session> out) throws Exception {
            Integer n = due.get(c.timestamp());
            due.put(c.timestamp(), n == null ? 1 : n + 1);
            c.timerService().registerEventTimeTimer(c.timestamp());
        }

        @Override
        public void onTimer(long at, OnTimerContext c, Collector<Session> out) throws Exception {
            Session now = open.value();
            if (now != null && at - now.last >= gap) {
                out.collect(now);
                open.clear();
                now = null;
            }
            Integer n = due.get(at);
            if (n != null) {
                if (now == null) {
                    now = new Session();
                    now.user = c.getCurrentKey();
                    now.first = at;
                    now.last = at;
                }
                now.last = Math.max(now.last, at);
                now.clicks += n;
                open.update(now);
                due.remove(at);
                c.timerService().registerEventTimeTimer(at + gap);
            }
        }
    }

    static void build(StreamExecutionEnvironment env, Source<Click, ?, ?> source, Sink<Session> main, long gap) {
        WatermarkStrategy<Click> time = WatermarkStrategy.<Click>forBoundedOutOfOrderness(Duration.ofMinutes(1))
                .withTimestampAssigner((c, t) -> c.ts);
        env.fromSource(source, time, "clicks")
                .keyBy(c -> c.user)
                .process(new Detect(gap))
                .uid("sessions")
                .sinkTo(main);
    }
}
