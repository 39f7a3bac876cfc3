import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.source.Source;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.flink.util.OutputTag;

public class Pricing {
    public static class Event {
        public String customer;
        public String product;
        public double price;
        public int quantity;
        public boolean gone;
    }

    public record Priced(Event event, double total) {}

    static final OutputTag<Event> UNPRICED = new OutputTag<>("unpriced") {};

    static class Enrich extends KeyedProcessFunction<String, Event, Priced> {
        private transient MapState<String, Double> prices;

        @Override
        public void open(OpenContext c) {
            prices = getRuntimeContext().getMapState(new MapStateDescriptor<>("prices", String.class, Double.class));
        }

        @Override
        public void processElement(Event e, Context c, Collector<Priced> out) throws Exception {
            Double price = prices.get(e.product);
            if (e.gone) {
                prices.remove(e.product);
            } else if (e.price > 0) {
                prices.put(e.product, e.price);
            } else if (price != null) {
                out.collect(new Priced(e, price * e.quantity));
            } else {
                c.output(UNPRICED, e);
            }
        }
    }

    static void build(StreamExecutionEnvironment env, Source<Event, ?, ?> source, Sink<Priced> main, Sink<Event> unpriced) {
        SingleOutputStreamOperator<Priced> priced = env
                .fromSource(source, WatermarkStrategy.noWatermarks(), "orders")
                .keyBy(e -> e.customer)
                .process(new Enrich())
                .uid("pricing");
        priced.getSideOutput(UNPRICED).sinkTo(unpriced);
        priced.sinkTo(main);
    }
}
